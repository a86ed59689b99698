import { readFile } from 'node:fs/promises'
import { exec, type Said, sleep, type TestDaemon } from '../lib/daemon.js'
import { name, payload, type Phase } from './phases.js'
import type { Victim } from './victims.js'

/** What `docker inspect` tells of the container; undefined: there is none. */
interface State { Status: string; ExitCode: number; Error: string; Pid: number; OOMKilled: boolean; StartedAt: string }
export type Told = State | undefined

/** An end that may be true. `before`: the state before, `said`: what the client was told. */
interface Ending { words: string; is: (state: Told, before: Told, said: Said) => boolean }

/** A line of the docker CLI and the ends that it may come with; anything else is wrong. */
interface Answer { code: number; out?: RegExp; err?: RegExp; ends: readonly Ending[]; why: string }

/** How long the state may be another one, milliseconds: the daemon has to see that somebody is gone. */
const TRUE_WITHIN = 20_000

const clean = (state: State) => !state.OOMKilled && state.Error === ''
const gone: Ending = { words: 'removed', is: (state) => state === undefined }
const created: Ending = { words: 'created', is: (state) => state?.Status === 'created' && state.ExitCode === 0 && clean(state) && state.Pid === 0 }
/** … and if it did before, it is the same life. */
const running: Ending = { words: 'running', is: (state, before) => state?.Status === 'running' && clean(state) && state.Pid > 0 && (before?.Status !== 'running' || (state.Pid === before.Pid && state.StartedAt === before.StartedAt)) }
const exited = (code: number): Ending => ({ words: `exited ${code}`, is: (state) => state?.Status === 'exited' && state.ExitCode === code && clean(state) && state.Pid === 0 })
/** Never ran: the daemon's words in State.Error are those that the CLI printed. */
const failed: Ending = { words: 'start failed', is: (state, _before, said) => state?.Status === 'created' && state.ExitCode === 128 && state.Pid === 0 && !state.OOMKilled && state.Error !== '' && said.stderr === `Error response from daemon: ${state.Error}\nError: failed to start containers: ${name}\n` }

/** `docker cp`'s own tar notices, before or after the CLI says why, that nobody takes it any more. */
const TAR = /^time="[^"]*" level=error msg="Can't (add file|close tar writer).*closed pipe"\n/gm
/** The daemon is not there, in the CLI's words; `start` adds which container it was about. */
const LOST = /^(Cannot connect to the Docker daemon at \S+ Is the docker daemon running\?|error during connect: .*: (EOF|.*broken pipe|.*connection reset by peer)|unexpected EOF)\n(Error: failed to start containers: \S+\n)?$/
/** The second is the CLI's for a 409 in place of a stream. */
const NOT_RUNNING = /^(Error response from daemon: container [0-9a-f]{64} is not running|unable to upgrade to tcp, received 409)\n$/
const WARNING = /^(WARNING: .*\n)?$/
const ID = /^[0-9a-f]{64}\n$/

const inVm = 'failed to create task for container: failed to create shim task: OCI runtime create failed: hull-vm create failed: '
const MONITOR = 'failed to create task for container: failed to create shim task: OCI runtime create failed: crun: hull-monitor was killed by SIGKILL: unknown\n'
const QEMU = new RegExp(`${inVm}the virtual machine ended before the workload started: QEMU was killed by signal 9: unknown\n`)
/** What a start says that was cut off, by who was killed: the words name it, or what the daemon sees of it. Who is not here is there only when the start is done. */
const startWords: Record<string, RegExp> = {
  'monitor of a container': new RegExp(MONITOR),
  'monitor of a VM': new RegExp(`${MONITOR}|${inVm}the virtual machine ended with code 137 before the workload ran: unknown\n`),
  'hull-vmm': new RegExp(`${inVm}the virtual machine ended with code 137 before the workload ran: unknown\n`),
  'QEMU': QEMU,
  'QEMU of a VM with a volume': QEMU,
  // hull-vmm sees it first, or the daemon does.
  'the file server': new RegExp(`${inVm}(the virtual machine ended with code 125 before the workload ran: )?the file server of the mounts ended: unknown\n`),
}
/** Matches nothing. */
const NEVER = /(?!)/

/** What is true when the daemon was killed: it is done, or it is not, and nothing that ran is harmed. */
const withoutDaemon: Record<Phase['name'], readonly Answer[]> = {
  'create': [
    { code: 0, out: ID, err: WARNING, ends: [created], why: 'it was made before' },
    { code: 1, err: LOST, ends: [gone, created], why: 'its record was on disk, or was not' },
  ],
  'start': [
    { code: 0, ends: [running], why: 'it was started before' },
    { code: 1, err: LOST, ends: [created, running], why: 'what was half started is undone; or it was done and nobody was left to say so' },
  ],
  'running': [{ code: 1, err: LOST, ends: [running], why: 'a workload outlives the daemon' }],
  'exec': [
    { code: 5, out: /^begun\ndone\n$/, ends: [running], why: 'it had ended before' },
    { code: 1, out: /^$/, err: LOST, ends: [running], why: 'nobody was there to run it' },
    { code: 255, out: /^(begun\n)?(done\n)?$/, ends: [running], why: 'its output ended and nobody knows its code: the CLI’s way to say that' },
    { code: 1, out: /^(begun\n)?(done\n)?$/, err: LOST, ends: [running], why: 'its output broke off' },
  ],
  'cp': [
    { code: 0, ends: [running], why: 'it was done before' },
    { code: 1, err: LOST, ends: [running], why: 'it broke off' },
  ],
  'cp, not running': [
    { code: 0, ends: [created], why: 'it was done before' },
    { code: 1, err: LOST, ends: [created], why: 'it broke off' },
  ],
  'stop': [
    { code: 0, out: new RegExp(`^${name}\n$`), ends: [exited(3)], why: 'it had ended before' },
    { code: 1, err: LOST, ends: [exited(3), running], why: 'it got its signal and ends by itself; or it never got it' },
  ],
  'rm': [
    { code: 0, out: new RegExp(`^${name}\n$`), ends: [gone], why: 'it was done before' },
    { code: 1, err: LOST, ends: [gone, exited(137), running], why: 'removed; killed and not removed; or neither' },
  ],
}

/** … when a part was killed: the workload has gone with it, by SIGKILL, unless it had ended by itself before. */
const withoutPart = (victim: Victim): Record<Phase['name'], readonly Answer[]> => ({
  'create': [],
  'start': [
    { code: 0, out: new RegExp(`^${name}\n$`), ends: [exited(137)], why: 'it had started, and was killed' },
    { code: 1, err: startWords[victim.name] ?? NEVER, ends: [failed], why: 'the start says who is missing' },
  ],
  'running': [{ code: 0, out: /^137\n$/, ends: [exited(137)], why: 'docker wait hears of the end' }],
  'exec': [
    { code: 5, out: /^begun\ndone\n$/, ends: [exited(137)], why: 'it had ended before' },
    { code: 137, out: /^(begun\n)?(done\n)?$/, ends: [exited(137)], why: 'it was killed with all the container’s processes' },
    { code: 1, out: /^$/, err: NOT_RUNNING, ends: [exited(137)], why: 'there was nothing to run it in any more' },
    { code: 126, out: /^container [0-9a-f]{64} is not running\r\n$/, ends: [exited(137)], why: 'likewise, noticed after the stream had begun' },
  ],
  'cp': [
    { code: 0, ends: [exited(137)], why: 'it was done before, or (a container) goes on in its files without it' },
    { code: 1, err: NOT_RUNNING, ends: [exited(137)], why: 'the machine that would do it has gone' },
  ],
  'cp, not running': [
    { code: 0, ends: [created], why: 'it was done before, or by another machine' },
    { code: 1, err: /^Error response from daemon: the virtual machine that worked on the files of the container ended before it was done\n$/, ends: [created], why: 'the machine for its files was killed in the middle' },
    { code: 1, err: new RegExp(`^Error response from daemon: (${(startWords[victim.name] ?? NEVER).source})$`), ends: [created], why: '… or when it started' },
  ],
  'stop': [{ code: 0, out: new RegExp(`^${name}\n$`), ends: [exited(3), exited(137)], why: 'it has ended, by itself or with its part' }],
  'rm': [{ code: 0, out: new RegExp(`^${name}\n$`), ends: [gone], why: 'what is killed already can be removed all the same' }],
})

/** … when nobody was killed: it was over. */
const undisturbed: Record<Phase['name'], readonly Answer[]> = {
  'create': [], 'running': [], 'start': [],
  'exec': [{ code: 5, out: /^begun\ndone\n$/, ends: [running], why: '' }],
  'cp': [{ code: 0, ends: [running], why: '' }],
  'cp, not running': [{ code: 0, ends: [created], why: '' }],
  'stop': [{ code: 0, out: new RegExp(`^${name}\n$`), ends: [exited(3)], why: '' }],
  'rm': [{ code: 0, out: new RegExp(`^${name}\n$`), ends: [gone], why: '' }],
}

export async function stateOf(daemon: TestDaemon): Promise<Told> {
  const answer = await daemon.api('GET', `/containers/${name}/json`)
  if (answer.status === 404) return undefined
  if (answer.status !== 200) throw new Error(`inspect: ${answer.status} ${answer.body}`)
  return (JSON.parse(answer.body) as { State: State }).State
}

/** What was copied is whole. */
async function copied(daemon: TestDaemon): Promise<void> {
  const back = `${payload(daemon)}-back`
  await daemon.ok('cp', '-q', `${name}:/root/copied`, back)
  if (!(await readFile(back)).equals(await readFile(payload(daemon)))) throw new Error('docker cp said that it was done, and the file is another')
  await exec('rm', [back])
}

/** Throws when the client was told something that is not so, or the state is not true within {@link TRUE_WITHIN}. How it ended. */
export async function judge(daemon: TestDaemon, { phase, victim, killed, said, before }: { phase: Phase; victim: Victim; killed: boolean; said: Said; before: Told }): Promise<string> {
  const answers = (!killed ? undisturbed : victim.program === undefined ? withoutDaemon : withoutPart(victim))[phase.name]
  const fitting = answers.filter(({ code, out, err }) => said.code === code && (out ?? /^/).test(said.stdout) && (err ?? /^$/).test(said.stderr.replace(TAR, '')))
  const words = `docker ${phase.name} said ${said.code} ${JSON.stringify(said.stdout)} ${JSON.stringify(said.stderr)}`
  if (fitting.length === 0) throw new Error(`${killed ? '' : 'nobody was killed, and '}${words}, which is none of what is true; the state is ${JSON.stringify(await stateOf(daemon))}`)
  const end = Date.now() + TRUE_WITHIN
  for (;;) {
    const state = await stateOf(daemon)
    const found = fitting.flatMap(({ ends }) => ends).find(({ is }) => is(state, before, said))
    if (found) {
      // What a running machine that loses its power had not written to its disk is lost, as in any other.
      const kept = phase.name === 'cp, not running' || (phase.name === 'cp' && (victim.isolation === 'process' || victim.program === undefined))
      if (kept && said.code === 0) await copied(daemon)
      return `code ${said.code}, ${found.words}`
    }
    if (Date.now() > end) throw new Error(`${words}, and the state is ${JSON.stringify(state)}, which cannot be: before it was ${JSON.stringify(before)}`)
    await sleep(50)
  }
}
