import { messageOf } from '../base/errors.js'
import { CliError } from './errors.js'
import type { Streams } from './terminal/session.js'

/** The answer of POST /containers/{id}/wait; nothing when the daemon ended before there was one. */
export type WaitAnswer = { StatusCode?: number; Error?: { Message?: string } | null } | undefined

/**
 * What `run` and `start -a` exit with: the workload's own code, or 125 when nobody can tell it, as in the docker CLI. 1 would be the
 * workload's word.
 */
export async function workloadExitCode(exit: Promise<WaitAnswer>, streams: Streams): Promise<number> {
  let answer: WaitAnswer
  try {
    answer = await exit
  } catch (error) {
    throw new CliError(`error waiting for container: ${messageOf(error)}`, 125)
  }
  if (answer?.Error?.Message) {
    streams.stderr.write(`Error waiting for container: ${answer.Error.Message}\n`)
    return 125
  }
  if (answer?.StatusCode === undefined) throw new CliError('error waiting for container: the daemon gave no answer', 125)
  return answer.StatusCode
}
