import { TestDaemon } from '../lib/daemon.js'
import { defineConformance } from './suite.js'

/** Hull with a default isolation: clients that know nothing of the flag get it for every workload. */
export const onHull = (isolation: 'process' | 'vm', share = 1): Promise<void> =>
  defineConformance(isolation, () => TestDaemon.start(['--default-isolation', isolation]), { sideBySide: true, share })
