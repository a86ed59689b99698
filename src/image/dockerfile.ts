import { badRequest } from '../base/errors.js'

/** One instruction of a Dockerfile. */
export interface Instruction {
  /** Upper case: 'RUN'. */
  name: string
  /** '--from=build': as written, in order, without the dashes. */
  flags: [name: string, value: string][]
  /** What comes after name and flags, continuation lines joined. */
  rest: string
  /** Where it begins. */
  line: number
}

export interface Dockerfile {
  instructions: Instruction[]
  /** '\\' or '`' (the `escape` directive). */
  escape: string
}

/** Bytes of a Dockerfile, and instructions in it. */
export const dockerfileLimit = 1 << 20
const instructionLimit = 5000

const known = new Set([
  'ADD', 'ARG', 'CMD', 'COPY', 'ENTRYPOINT', 'ENV', 'EXPOSE', 'FROM', 'HEALTHCHECK', 'LABEL', 'MAINTAINER', 'ONBUILD', 'RUN', 'SHELL', 'STOPSIGNAL', 'USER', 'VOLUME', 'WORKDIR',
])
const withFlags = new Set(['ADD', 'COPY', 'FROM', 'HEALTHCHECK', 'RUN'])

const fail = (line: number, why: string) => badRequest(`dockerfile parse error on line ${line}: ${why}`)

/** The flags at the beginning of an instruction's arguments. HEALTHCHECK keeps its own: they are part of the change that it is. */
function takeFlags(name: string, text: string): { flags: Instruction['flags']; rest: string } {
  const flags: Instruction['flags'] = []
  if (!withFlags.has(name) || name === 'HEALTHCHECK') return { flags, rest: text }
  let rest = text
  for (;;) {
    const match = /^--([a-z][a-z0-9-]*)(?:=("[^"]*"|'[^']*'|\S*))?(?:\s+|$)/.exec(rest)
    if (match === null) return { flags, rest: rest.replace(/^--\s+/, '') }
    flags.push([match[1]!, (match[2] ?? '').replace(/^(["'])(.*)\1$/s, '$2')])
    rest = rest.slice(match[0].length)
  }
}

/** One logical line to an instruction. `onbuild`: a trigger, which may not hold another. */
export function parseInstruction(text: string, line: number): Instruction {
  // No pattern that looks for the blanks at the end: in a line with a million of them before its last word it would look at each from each.
  const trimmed = text.trim()
  const word = /^\S+/.exec(trimmed)?.[0] ?? ''
  const arguments_ = trimmed.slice(word.length).trimStart()
  const name = word.toUpperCase()
  if (!known.has(name)) throw fail(line, `unknown instruction: ${word.slice(0, 100)}`)
  if (arguments_ === '') throw fail(line, `${name} requires ${name === 'FROM' ? 'either one or three arguments' : 'at least one argument'}`)
  const { flags, rest } = takeFlags(name, arguments_)
  // The classic builder would hand '<<EOF' to the shell and fail somewhere else.
  if ((name === 'RUN' || name === 'COPY' || name === 'ADD') && /(^|\s)<<-?["']?[A-Za-z_]\w*["']?(\s|$)/.test(rest.split('\n')[0]!) && !rest.startsWith('[')) {
    throw fail(line, 'the here-document syntax requires BuildKit')
  }
  return { name, flags, rest, line }
}

/**
 * Reads a Dockerfile as the classic builder does (https://docs.docker.com/reference/dockerfile/, moby buildkit frontend/dockerfile/parser):
 * `escape` directive, comments, continuation lines (comments and empty lines in them are skipped), instructions in any case. What an
 * instruction's arguments mean is not judged here. 400 with the line's number.
 */
export function parseDockerfile(text: string): Dockerfile {
  if (Buffer.byteLength(text) > dockerfileLimit) throw badRequest(`the Dockerfile is larger than ${dockerfileLimit} bytes`)
  const lines = text.replace(/^\ufeff/, '').split(/\r?\n/)
  let escape = '\\'
  for (const line of lines) {
    const directive = /^#\s*([A-Za-z][A-Za-z0-9]*)\s*=(.+)$/.exec(line)
    if (directive === null) break // directives stand before everything else
    if (directive[1]!.toLowerCase() !== 'escape') continue
    const value = directive[2]!.trim()
    if (value !== '\\' && value !== '`') throw badRequest(`invalid ESCAPE '${value.slice(0, 10)}'. Must be \` or \\`)
    escape = value
  }
  const continues = new RegExp(`${escape === '\\' ? '\\\\' : '`'}[ \\t]*$`)
  const instructions: Instruction[] = []
  let logical = ''
  let start = 0
  const finish = () => {
    if (logical.trim() !== '') instructions.push(parseInstruction(logical, start))
    logical = ''
    if (instructions.length > instructionLimit) throw badRequest(`the Dockerfile has more than ${instructionLimit} instructions`)
  }
  for (const [i, line] of lines.entries()) {
    if (/^\s*#/.test(line)) continue
    if (logical === '') {
      if (line.trim() === '') continue
      start = i + 1
    } else if (line.trim() === '') continue
    if (continues.test(line)) {
      logical += line.replace(continues, '')
      if (logical === '') logical = ' '
      continue
    }
    logical += line
    finish()
  }
  finish()
  if (instructions.length === 0) throw badRequest('file with no instructions')
  return { instructions, escape }
}

/** The JSON form of an instruction's arguments; undefined when it is the other one. */
export function jsonWords(text: string): string[] | undefined {
  if (!text.startsWith('[')) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return Array.isArray(value) && value.every((word) => typeof word === 'string') ? value : undefined
  } catch {
    return undefined
  }
}

type Lookup = (name: string) => string | undefined

interface Cursor {
  text: string
  at: number
}

/** `$NAME` and `${NAME…}` at the cursor, which stands behind the '$'. Undefined: a plain '$'. */
function variable(cursor: Cursor, lookup: Lookup, escape: string): string | undefined {
  const { text } = cursor
  if (text[cursor.at] !== '{') {
    const name = /^(?:[A-Za-z_]\w*|[0-9@*#?!$-])/.exec(text.slice(cursor.at))?.[0]
    if (name === undefined) return undefined
    cursor.at += name.length
    return lookup(name) ?? ''
  }
  const name = /^[A-Za-z_]\w*|^[0-9]+/.exec(text.slice(cursor.at + 1))?.[0]
  if (name === undefined) throw badRequest(`failed to process "${text.slice(0, 200)}": bad substitution`)
  cursor.at += 1 + name.length
  const colon = text[cursor.at] === ':'
  if (colon) cursor.at++
  const operator = text[cursor.at]
  if (operator === '}' && !colon) {
    cursor.at++
    return lookup(name) ?? ''
  }
  if (operator === undefined || !'-+?'.includes(operator)) throw badRequest(`failed to process "${text.slice(0, 200)}": unsupported modifier (${operator ?? ''}) in substitution`)
  cursor.at++
  // The word is expanded, too, up to its own brace.
  let word = ''
  for (;;) {
    const c = text[cursor.at]
    if (c === undefined) throw badRequest(`failed to process "${text.slice(0, 200)}": syntax error: missing '}'`)
    cursor.at++
    if (c === '}') break
    if (c === escape && cursor.at < text.length) word += text[cursor.at++]
    else if (c === '$') word += variable(cursor, lookup, escape) ?? '$'
    else word += c
  }
  const value = lookup(name)
  const isSet = value !== undefined && (!colon || value !== '')
  if (operator === '-') return isSet ? value : word
  if (operator === '+') return isSet ? word : ''
  if (!isSet) throw badRequest(`failed to process "${text.slice(0, 200)}": ${name}: ${word || 'not set'}`)
  return value
}

/**
 * Replaces variables (Dockerfile reference, "Environment replacement"). `keep`: quotes and escapes stay for a later reader, and what is put in is
 * escaped, so that no value can end a word; `plain`: they are undone, the result is the value itself.
 */
export function expand(text: string, lookup: Lookup, escape: string, mode: 'keep' | 'plain'): string {
  const cursor: Cursor = { text, at: 0 }
  let out = ''
  let quote = ''
  while (cursor.at < text.length) {
    const c = text[cursor.at++]!
    if (c === escape && quote !== "'" && cursor.at < text.length) {
      const next = text[cursor.at++]!
      const special = quote === '' || '"$'.includes(next) || next === escape
      if (mode === 'keep') out += `\\${next}`
      else out += special ? next : `${c}${next}`
    } else if ((c === '"' || c === "'") && (quote === '' || quote === c)) {
      quote = quote === '' ? c : ''
      if (mode === 'keep') out += c
    } else if (c === '$' && quote !== "'") {
      const value = variable(cursor, lookup, escape)
      if (value === undefined) out += mode === 'keep' ? '\\$' : '$'
      else if (mode === 'plain') out += value
      else out += quote === '"' ? value.replace(/["\\$]/g, '\\$&') : value.replace(/[\s"'\\]/g, '\\$&')
    } else out += c
  }
  return out
}

/** Splits at blanks outside of quotes, quotes and escapes undone after variables were replaced. */
export function expandWords(text: string, lookup: Lookup, escape: string): string[] {
  const words: string[] = []
  let start = 0
  let quote = ''
  let closed = true // there may be a brace further on: it is looked for in vain once, not from every '${'
  const take = (end: number) => {
    if (end > start) words.push(expand(text.slice(start, end), lookup, escape, 'plain'))
  }
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!
    if (c === escape && quote !== "'") i++
    else if (quote !== '') quote = c === quote ? '' : quote
    else if (c === '"' || c === "'") quote = c
    else if (c === '$' && text[i + 1] === '{' && closed) {
      const close = text.indexOf('}', i)
      if (close > 0) i = close
      else closed = false
    } else if (/\s/.test(c)) {
      take(i)
      start = i + 1
    }
  }
  take(text.length)
  return words
}
