import { badRequest } from '../../base/errors.js'
import type { TopResult } from '../types.js'
import { cleanMessage, ProtocolError } from './protocol.js'

/** One process of the guest, as the agent's `top` says it (guest/PROTOCOL.md, Queries). */
export interface GuestProcess {
  pid: number
  ppid: number
  uid: number
  user: string
  tty: string
  /** seconds since the epoch */
  start: number
  /** seconds */
  cpu: number
  /** KiB */
  rss: number
  /** KiB */
  vsz: number
  state: string
  args: string
}

/** Processes that are read from one answer, at most. */
const MAX_ROWS = 32_768

/** The agent's answer as rows. The guest writes it: numbers are checked, text is stripped of control characters. */
export function parseProcesses(answer: Buffer): GuestProcess[] {
  const rows: GuestProcess[] = []
  for (const line of answer.toString('utf8').split('\n')) {
    if (line === '') continue
    if (rows.length >= MAX_ROWS) break
    const fields = line.split('\t')
    if (fields.length < 11) throw new ProtocolError(`a process with ${fields.length} fields`)
    const number = (index: number): number => {
      const value = Number(fields[index])
      if (!Number.isFinite(value) || value < 0) throw new ProtocolError(`bad number in field ${index} of a process`)
      return value
    }
    rows.push({
      pid: number(0), ppid: number(1), uid: number(2),
      user: cleanMessage(fields[3]!) || String(number(2)),
      tty: cleanMessage(fields[4]!) || '?',
      start: number(5), cpu: number(6), rss: number(7), vsz: number(8),
      state: cleanMessage(fields[9]!) || '?',
      args: cleanMessage(fields.slice(10).join(' ')),
    })
  }
  return rows
}

/** What the formats need besides the rows. */
export interface PsContext {
  /** seconds since the epoch */
  now: number
  /** KiB of RAM, for %MEM */
  memory: number
}

interface Column {
  title: string
  value: (process: GuestProcess, context: PsContext) => string
}

const pad = (value: number) => String(value).padStart(2, '0')
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** '[DD-]HH:MM:SS' (ps(1): TIME). */
export function longTime(seconds: number): string {
  const whole = Math.floor(seconds)
  const days = Math.floor(whole / 86_400)
  const clock = `${pad(Math.floor(whole / 3600) % 24)}:${pad(Math.floor(whole / 60) % 60)}:${pad(whole % 60)}`
  return days > 0 ? `${pad(days)}-${clock}` : clock
}

/** 'M:SS' (ps(1), BSD TIME). */
export function bsdTime(seconds: number): string {
  const whole = Math.floor(seconds)
  return `${Math.floor(whole / 60)}:${pad(whole % 60)}`
}

/** '[[DD-]HH:]MM:SS' (ps(1): ELAPSED). */
export function elapsed(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds))
  return whole < 3600 ? `${pad(Math.floor(whole / 60))}:${pad(whole % 60)}` : longTime(whole)
}

/** 'HH:MM' on the same day, 'MmmDD' in the same year, else the year (ps(1): STIME). */
export function startTime(start: number, now: number): string {
  const then = new Date(start * 1000)
  const today = new Date(now * 1000)
  if (then.toDateString() === today.toDateString()) return `${pad(then.getHours())}:${pad(then.getMinutes())}`
  if (then.getFullYear() === today.getFullYear()) return `${months[then.getMonth()]}${pad(then.getDate())}`
  return String(then.getFullYear())
}

/** CPU time over life time, per cent. */
function percentCpu(process: GuestProcess, context: PsContext): number {
  const age = context.now - process.start
  return age > 0 ? Math.min(99.9, (process.cpu / age) * 100) : 0
}

/** The name that ps calls COMMAND without arguments: base name of argv[0], 15 characters as in the kernel. */
function commandName(process: GuestProcess): string {
  const first = process.args.split(' ', 1)[0] ?? ''
  return first.slice(first.lastIndexOf('/') + 1).slice(0, 15) || first
}

const text = (title: string, value: Column['value']): Column => ({ title, value })
const pid = text('PID', (p) => String(p.pid))
const tty = text('TTY', (p) => p.tty)
const time = text('TIME', (p) => longTime(p.cpu))
const stat = text('STAT', (p) => p.state)
const args = (title: string) => text(title, (p) => p.args)
const cpu = text('%CPU', (p, c) => percentCpu(p, c).toFixed(1))
const memory = text('%MEM', (p, c) => (c.memory > 0 ? Math.min(99.9, (p.rss / c.memory) * 100) : 0).toFixed(1))
const vsz = text('VSZ', (p) => String(p.vsz))
const rss = text('RSS', (p) => String(p.rss))
const started = (title: string) => text(title, (p, c) => startTime(p.start, c.now))
const user = (title: string) => text(title, (p) => p.user)
const uid = text('UID', (p) => String(p.uid))
const ppid = text('PPID', (p) => String(p.ppid))
const usage = text('C', (p, c) => String(Math.floor(percentCpu(p, c))))

/** ps -f */
const full: Column[] = [user('UID'), pid, ppid, usage, started('STIME'), tty, time, args('CMD')]
/** ps u */
const userOriented: Column[] = [
  user('USER'), pid, cpu, memory, vsz, rss, tty, stat, started('START'), text('TIME', (p) => bsdTime(p.cpu)), args('COMMAND'),
]
/** ps -e */
const simple: Column[] = [pid, tty, time, text('CMD', commandName)]
/** ps ax */
const bsd: Column[] = [pid, tty, stat, text('TIME', (p) => bsdTime(p.cpu)), args('COMMAND')]

/** Names that -o knows (ps(1), "Standard format specifiers"). */
const specifiers = new Map<string, Column>([
  ['pid', pid], ['tgid', pid], ['ppid', ppid],
  ['uid', uid], ['euid', text('EUID', (p) => String(p.uid))],
  ['user', user('USER')], ['euser', user('EUSER')], ['uname', user('USER')],
  ['tty', text('TT', (p) => p.tty)], ['tt', text('TT', (p) => p.tty)], ['tname', tty],
  ['time', time], ['cputime', time], ['bsdtime', text('TIME', (p) => bsdTime(p.cpu))],
  ['etime', text('ELAPSED', (p, c) => elapsed(c.now - p.start))],
  ['etimes', text('ELAPSED', (p, c) => String(Math.max(0, Math.floor(c.now - p.start))))],
  ['stime', started('STIME')], ['start_time', started('START')], ['bsdstart', started('START')], ['start', started('STARTED')],
  ['lstart', text('STARTED', (p) => new Date(p.start * 1000).toString().slice(0, 24))],
  ['rss', rss], ['rssize', rss], ['rsz', text('RSZ', rss.value)], ['vsz', vsz], ['vsize', vsz],
  ['s', text('S', (p) => p.state.slice(0, 1))], ['state', text('S', (p) => p.state.slice(0, 1))], ['stat', stat],
  ['c', usage], ['%cpu', cpu], ['pcpu', cpu], ['%mem', memory], ['pmem', memory],
  ['comm', text('COMMAND', commandName)], ['ucmd', text('CMD', commandName)], ['ucomm', text('COMMAND', commandName)],
  ['args', args('COMMAND')], ['command', args('COMMAND')], ['cmd', args('CMD')],
])

function userDefined(list: string): Column[] {
  const columns: Column[] = []
  // 'name=TITLE' takes the rest of the argument as its title (ps(1), -o).
  const [names, title] = list.includes('=') ? [list.slice(0, list.indexOf('=')), list.slice(list.indexOf('=') + 1)] : [list, undefined]
  const words = names.split(/[\s,]+/).filter((name) => name !== '')
  for (const [index, name] of words.entries()) {
    const column = specifiers.get(name.toLowerCase())
    if (!column) throw badRequest(`ps: error: unknown user-defined format specifier "${cleanMessage(name)}"`)
    columns.push(title !== undefined && index === words.length - 1 ? { ...column, title } : column)
  }
  if (columns.length === 0) throw badRequest('ps: error: improper list')
  return columns
}

/** The columns that these arguments of ps(1) ask for. All processes are always shown: the container is the selection. */
function columnsFor(psArgs: readonly string[]): Column[] {
  // One argument is the API's ps_args as it came; several are split already, and a title may hold spaces.
  const words = (psArgs.length === 1 ? psArgs[0]!.split(/\s+/) : psArgs).filter((word) => word !== '')
  if (words.length === 0) return full
  const custom: Column[] = []
  let format: Column[] | undefined
  for (let index = 0; index < words.length; index++) {
    const word = words[index]!
    const option = /^--(?:format|o)(?:=(.*))?$/.exec(word)
    if (option) {
      custom.push(...userDefined(option[1] ?? words[++index] ?? ''))
      continue
    }
    const dashed = word.startsWith('-')
    const letters = dashed ? word.slice(1) : word
    for (let at = 0; at < letters.length; at++) {
      const letter = letters[at]!
      if (letter === 'o') {
        const rest = letters.slice(at + 1)
        custom.push(...userDefined(rest === '' ? (words[++index] ?? '') : rest))
        break
      }
      if (dashed && letter === 'f') format = full
      else if (dashed && 'eAaxww'.includes(letter)) format ??= simple
      else if (!dashed && letter === 'u') format = userOriented
      else if (!dashed && letter === 'f') continue // a forest: the rows are the same
      else if (!dashed && 'axwe'.includes(letter)) format ??= bsd
      else throw badRequest(`ps: option ${dashed ? '-' : ''}${cleanMessage(letter)} is not supported inside a virtual machine; use -ef, aux or -o`)
    }
  }
  return custom.length > 0 ? custom : (format ?? full)
}

/** The table that `ps` with these arguments would print for the guest's processes. */
export function formatPs(processes: readonly GuestProcess[], psArgs: readonly string[], context: PsContext): TopResult {
  const columns = columnsFor(psArgs)
  // Docker's rules (moby daemon/top_unix.go): no other column may be called PID, and without PIDs it could not have told which processes are the container's.
  if (columns.some((column) => column.title.startsWith('PID') && column.value !== pid.value)) throw badRequest('specifying "=PID" for another column is not allowed')
  if (!columns.some((column) => column.title === 'PID')) throw badRequest("Couldn't find PID field in ps output")
  return {
    Titles: columns.map((column) => column.title),
    Processes: processes.map((process) => columns.map((column) => column.value(process, context))),
  }
}
