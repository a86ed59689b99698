import { badRequest } from '../base/errors.js'
import type { Isolation } from '../sandbox/types.js'

/**
 * HostConfig.Isolation to a wall. '' and 'default' mean what the daemon is configured to; 'hyperv' is what Windows calls a
 * VM, so that Compose files written for it say the same here. 400 for anything else.
 */
export function resolveIsolation(wanted: string, fallback: Isolation): Isolation {
  switch (wanted.toLowerCase()) {
    case '':
    case 'default':
      return fallback
    case 'process':
      return 'process'
    case 'vm':
    case 'hyperv':
      return 'vm'
    default:
      throw badRequest(`invalid isolation "${wanted}": must be one of default, process, vm (or hyperv, its alias)`)
  }
}
