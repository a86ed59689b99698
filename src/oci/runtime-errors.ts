import { HullError } from '../base/errors.js'
import type { RuntimeKind } from './runtime.js'

/** What the runtime was asked to run, to name it in messages as Docker does. */
export interface Attempt {
  /** argv[0] of the workload. */
  command: string
  cwd: string
}

/** The runtime's last word: crun prints one plain line, runc logfmt, both may print JSON; other lines are noise before it. */
export function lastWords(text: string): string {
  const lines = text.split('\n').map((line) => line.trim()).filter(Boolean)
  const errors = lines.filter((line) => !/level=(warning|info|debug)/.test(line))
  const line = errors.at(-1) ?? lines.at(-1) ?? ''
  const logfmt = /(?:^|\s)msg="((?:[^"\\]|\\.)*)"/.exec(line)
  if (logfmt) return logfmt[1]!.replace(/\\(.)/g, '$1')
  if (line.startsWith('{')) {
    try {
      const parsed: unknown = JSON.parse(line)
      if (typeof parsed === 'object' && parsed !== null && 'msg' in parsed && typeof parsed.msg === 'string') return parsed.msg
    } catch {
      // not JSON after all
    }
  }
  return line
}

/** strerror's capitals, which Go (and so Docker, and its CLI's search for exit codes) writes small. */
const lowerErrno = (text: string) =>
  text.replace(/(No such file or directory|Permission denied|Is a directory|Not a directory|Operation not permitted|Exec format error|Invalid argument|No space left on device|Too many open files|Read-only file system|File exists|Too many levels of symbolic links|Resource temporarily unavailable|Cannot allocate memory)/g, (match) => match.toLowerCase())

/** crun's message for a command that cannot be run, in the words of runc (and of Go's os/exec). */
function inGo(text: string, attempt: Attempt): string | undefined {
  const name = JSON.stringify(attempt.command)
  if (/^executable file `.*` not found in \$PATH/s.test(text)) {
    return attempt.command.includes('/') ? `exec: ${name}: stat ${attempt.command}: no such file or directory` : `exec: ${name}: executable file not found in $PATH`
  }
  // crun 1.8 says EPERM of what is not a regular file, EACCES of what has no x bit.
  if (/^open executable: Operation not permitted/.test(text)) return `exec: ${name}: is a directory`
  if (/^(open|stat) executable: Permission denied/.test(text) || /^the path `.*` exists but it is not executable/.test(text)) return `exec: ${name}: permission denied`
  const exec = /^exec(?: container process)?(?: \(missing dynamic library\?\))? `(.*)`: (.*)$/s.exec(text)
  if (exec) return `exec ${exec[1]}: ${lowerErrno(exec[2]!)}`
  const chdir = /^chdir(?: to)? `(.*)`: (.*)$/s.exec(text)
  if (chdir) return `chdir to cwd (${JSON.stringify(chdir[1])}) set in config.json failed: ${lowerErrno(chdir[2]!)}`
  return undefined
}

/** moby daemon/errors.go: these words make a failed start the user's mistake, and the CLI's 126 or 127. Docker says 500 where the container's own `--ulimit nofile` is too low to come up, or the kernel does not take a `--sysctl`'s value. */
function statusOf(message: string): number {
  return /too many open files|write to `?\/proc\/sys\/|executable file not found|no such file or directory|permission denied|not a directory|is a directory|exec format error/i.test(message) ? 400 : 500
}

/** A failed `create` as dockerd says it: `failed to create task for container: … OCI runtime create failed: crun: …: unknown`. */
export function createError(kind: RuntimeKind, name: string, stderr: string, attempt: Attempt): HullError {
  const text = lastWords(stderr)
  const user = kind === 'crun' ? inGo(text, attempt) : undefined
  const inner = user ? `${name} create failed: unable to start container process: error during container init: ${user}` : kind === 'runc' ? text : `${name}: ${lowerErrno(text) || 'no message'}`
  const message = `failed to create task for container: failed to create shim task: OCI runtime create failed: ${inner}: unknown`
  return new HullError(statusOf(message), message)
}

/** A `start` that failed after `create` went well: of gVisor, which looks for the command only then. */
export function startError(stderr: string): HullError {
  const message = `OCI runtime start failed: ${lowerErrno(lastWords(stderr)) || 'no message'}: unknown`
  return new HullError(statusOf(message), message)
}

/** A failed `exec`: Docker's words, and the exit code that `docker exec` ends with. */
export function execError(kind: RuntimeKind, stderr: string, attempt: Attempt): { error: HullError; exitCode: 126 | 127 } {
  const text = lastWords(stderr)
  const user = kind === 'crun' ? inGo(text, attempt) : undefined
  // runc says "exec failed: unable to start container process: …" by itself.
  const inner = user ? `exec failed: unable to start container process: ${user}` : /^exec failed/.test(text) ? text : `exec failed: ${lowerErrno(text) || 'no message'}`
  const message = `OCI runtime exec failed: ${inner}: unknown`
  const missing = /executable file not found|no such file or directory/.test(message)
  return { error: new HullError(statusOf(message), message), exitCode: missing ? 127 : 126 }
}
