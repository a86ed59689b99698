import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { NetworkChange } from '../types.js'

/** A workload may have made its /etc/hosts as long as it liked: more than this is not read back. */
const hostsMax = 1 << 20

/** /etc/hosts without the lines of some addresses and with others at its end. What the workload wrote itself stays. */
export function editHosts(text: string, forget: readonly string[], add: readonly string[]): string {
  const lines = text.split('\n').filter((line) => line !== '' && !forget.includes(line.split(/\s/, 1)[0]!))
  return [...lines, ...add].join('\n') + '\n'
}

/** The files are bind-mounted into the container: they must stay the same files, so they are written in place. Only their content is the workload's. */
async function rewrite(path: string, edit: (text: string) => string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(hostsMax), position: 0 })
    const text = edit(buffer.subarray(0, bytesRead).toString('utf8'))
    await file.truncate(0)
    await file.write(text, 0)
  } finally {
    await file.close()
  }
}

/** Applies a change of networks to /etc/hosts and /etc/resolv.conf of a running container. */
export async function changeNetworkFiles(runDir: string, change: NetworkChange): Promise<void> {
  const { hosts, forget, resolvConf } = change
  if (hosts.length > 0 || forget.length > 0) await rewrite(join(runDir, 'hosts'), (text) => editHosts(text, forget, hosts))
  if (resolvConf !== undefined) await rewrite(join(runDir, 'resolv.conf'), () => resolvConf)
}
