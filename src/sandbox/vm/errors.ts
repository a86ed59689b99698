import { HullError } from '../../base/errors.js'
import { StartFailure } from './client.js'
import type { Failure } from './protocol.js'
import type { VmStatus } from './vmdir.js'

/** Docker's own sentence for a user that the image does not have comes without the runtime's wrapping (moby daemon/oci_linux.go). */
const unwrapped = /^unable to find (user|group) /

/** 400 for what the user asked for and the image cannot do, 500 for what is our fault. */
function statusOf(failure: Failure): number {
  // The guest's kernel does not take the value of a --sysctl (guest/agent_root.c).
  return failure.code === 126 || failure.code === 127 || /^(invalid )?sysctl[ :]/.test(failure.message) ? 400 : 500
}

/** A workload that did not start, as dockerd says it; the docker CLI makes exit codes 127, 126 and 125 of these words. */
export function startError(failure: Failure): HullError {
  if (unwrapped.test(failure.message)) return new HullError(statusOf(failure), failure.message)
  const inner = failure.code === 125 ? failure.message : `unable to start container process: error during container init: ${failure.message}`
  return new HullError(
    statusOf(failure),
    `failed to create task for container: failed to create shim task: OCI runtime create failed: hull-vm create failed: ${inner}: unknown`,
  )
}

/**
 * hull-vmm's own sentences (guest/vmm_qmp.c, vmm_main.c), from their beginning: what a guest says of a container has words of its user's in it, but none begins with them. Who was killed (the host ran out of
 * memory, somebody's kill -9) says nothing of the template: without it all machines of that shape boot for five minutes.
 */
const blaming = /^(QEMU cannot load the template(: |$)|the virtual machine ended before the workload started: (?!QEMU was killed by signal 9\b)|the guest did not answer in time$)/

/** A clone that came to its end like this, before its workload started, may have a template that is no good. 126 and 127 are the workload's: its program, or what it is to find. */
export function blamesTemplate(error: unknown): boolean {
  return error instanceof StartFailure && error.failure.code === 125 && blaming.test(error.failure.message)
}

/** What the status file of a machine that ended before it said anything tells, as the machine would have said it. */
export const leftFailure = (status: VmStatus | undefined): StartFailure => new StartFailure({ code: status?.code ?? 125, message: status?.message || 'it ended' })

/** An exec session that did not start, as dockerd says it. */
export function execError(failure: Failure): HullError {
  if (unwrapped.test(failure.message)) return new HullError(statusOf(failure), failure.message)
  return new HullError(statusOf(failure), `OCI runtime exec failed: exec failed: unable to start container process: ${failure.message}: unknown`)
}
