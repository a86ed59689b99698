import { badRequest } from '../base/errors.js'

/** Sysctls of the ipc namespace (ipc_namespaces(7)). */
const ipcSysctls = new Set(['msgmax', 'msgmnb', 'msgmni', 'sem', 'shmall', 'shmmax', 'shmmni', 'shm_rmid_forced'].map((name) => `kernel.${name}`))

/**
 * Refuses what would change the host: a container may set only what its own namespaces hold. 400 in the runtimes' words. `own`: which namespaces
 * the container does not share with the host or with another container.
 */
export function checkSysctls(sysctls: Readonly<Record<string, string>>, own: { ipc: boolean; network: boolean; uts: boolean }): void {
  for (const name of Object.keys(sysctls)) {
    // sysctl(8) takes both 'net/ipv4/ip_forward' and 'net.ipv4.ip_forward'.
    const dotted = /[./]/.exec(name)?.[0] === '/' ? name.replace(/[./]/g, (mark) => (mark === '/' ? '.' : '/')) : name
    if (!/^[a-zA-Z0-9_./-]+$/.test(name) || name.split(/[./]/).includes('')) throw badRequest(`invalid sysctl ${JSON.stringify(name)}`)
    const refuse = (why: string) => badRequest(`sysctl ${JSON.stringify(name)} ${why}`)
    if (ipcSysctls.has(dotted) || dotted.startsWith('fs.mqueue.')) {
      if (!own.ipc) throw refuse('is not in a separate kernel namespace')
    } else if (dotted.startsWith('net.')) {
      if (!own.network) throw refuse('not allowed in host network namespace')
    } else if (dotted === 'kernel.domainname') {
      if (!own.uts) throw refuse('not allowed in host UTS namespace')
    } else if (dotted === 'kernel.hostname') throw refuse('is not allowed as it conflicts with the OCI "hostname" field')
    else throw refuse('is not in a separate kernel namespace')
  }
}
