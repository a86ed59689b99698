import { once } from 'node:events'
import { fileArguments, fileJob, splitFrames, type FileJob, type FileOperation } from '../files.js'
import type { VmClient } from './client.js'
import type { TextEntry } from './protocol.js'

const SIGKILL = 9
/** Milliseconds that a guest gets to tell the end of a job that was ended from here. */
const END_IS_TOLD = 3000

/** EXEC of the guest's own hull-files (guest/PROTOCOL.md, "Files"). */
export function filesEntries(operation: FileOperation): TextEntry[] {
  return [
    ['builtin', 'files'],
    ['stdin', '1'],
    ['freeze', operation.op === 'layer' && operation.freeze ? '1' : '0'],
    ...fileArguments(operation).map((arg) => ['arg', arg] as const),
  ]
}

/** Runs hull-files in a guest, with an exec session's streams. `why`: as in FileProcess. */
export async function guestFiles(client: VmClient, operation: FileOperation, why: () => Promise<Error | undefined>): Promise<FileJob> {
  const session = await client.exec(filesEntries(operation), { tty: false, stdin: true, detach: false })
  const { stdout, stderr } = splitFrames(session.duplex)
  const said = once(stderr, 'end') // after all of both streams
  let closing: NodeJS.Timeout | undefined
  const kill = () => {
    session.signal(SIGKILL).catch(() => {})
    session.duplex.destroy()
    // That leaves the session open until the guest tells its end. One that never does is not waited for: a start or a removal of the container waits for this job.
    closing ??= setTimeout(() => session.close(), END_IS_TOLD)
  }
  const ended = session.exited.then(async (code) => {
    clearTimeout(closing)
    await said
    return `exit code ${code}`
  })
  return fileJob({ stdin: session.duplex, stdout, stderr, ended, why, kill }, operation)
}
