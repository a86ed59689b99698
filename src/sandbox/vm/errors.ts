import { HullError } from '../../base/errors.js'
import type { Failure } from './protocol.js'

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
 * A clone that came to its end like this, before its workload started, may have a template that is no good. Words of hull-vmm's (guest/vmm_qmp.c, vmm_main.c): what the guest says of its own comes later. Who was
 * killed (the host ran out of memory, somebody's kill -9) says nothing of the template: without it all machines of that shape boot for five minutes.
 */
export function blamesTemplate(error: unknown): boolean {
  return error instanceof Error && /cannot load the template|before the workload started|did not answer in time/.test(error.message) && !/QEMU was killed by signal 9\b/.test(error.message)
}

/** An exec session that did not start, as dockerd says it. */
export function execError(failure: Failure): HullError {
  if (unwrapped.test(failure.message)) return new HullError(statusOf(failure), failure.message)
  return new HullError(statusOf(failure), `OCI runtime exec failed: exec failed: unable to start container process: ${failure.message}: unknown`)
}
