import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { namesOf } from '../../src/network/names.js'
import { exec, type TestDaemon } from './daemon.js'
import { snapshot } from './leaks.js'

/** What the kernel has of one daemon, by kind; unlike {@link snapshot} blind to other daemons that work at the same time. */
export type Traces = Record<'links' | 'mounts' | 'cgroups' | 'nft' | 'processes' | 'namespaces', string[]>

/** Everything that belongs to this daemon and its workloads: names in the kernel follow from its data root. */
export async function traces(daemon: TestDaemon): Promise<Traces> {
  const suffix = createHash('sha256').update(daemon.dataRoot).digest('hex').slice(0, 6)
  const bridge = `hull${suffix}`
  const { vethPrefix, tapPrefix } = namesOf(bridge)
  const [all, nft] = await Promise.all([snapshot(), exec('nft', ['list', 'ruleset'])])
  const tables = nft.stdout.split(/^(?=table )/m).filter((table) => table.split('\n', 1)[0]!.includes(bridge))
  return {
    links: all.links.filter((name) => name === bridge || name.startsWith(vethPrefix) || name.startsWith(tapPrefix)),
    mounts: all.mounts.filter((path) => path.startsWith(`${daemon.directory}/`)),
    cgroups: all.cgroups.filter((path) => path.split('/').some((part) => part === `hull-${suffix}`)),
    nft: tables.flatMap((table) => table.split('\n').map((line) => line.trim())),
    processes: await processesOf(daemon.directory),
    namespaces: all.namespaces.filter((line) => line.includes(`${daemon.directory}/`)),
  }
}

/** Processes with the daemon's directory in their arguments or, like QEMU in its jail, below a monitor that has. The daemon itself does not count. */
async function processesOf(directory: string): Promise<string[]> {
  const rows = new Map<number, { parent: number; command: string }>()
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const [stat, command] = await Promise.all([readFile(`/proc/${name}/stat`, 'utf8').catch(() => ''), readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')])
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
    if (stat !== '' && command !== '') rows.set(Number(name), { parent, command: command.replaceAll('\0', ' ') })
  }
  const supervised = (pid: number): boolean => {
    const row = rows.get(pid)
    if (!row || pid === 1) return false
    return /(^|\/)(hull-monitor|crun|crun-wrap) /.test(row.command) && row.command.includes(`${directory}/`) ? true : supervised(row.parent)
  }
  return [...rows].filter(([pid]) => supervised(pid)).map(([pid, row]) => `${pid} ${row.command.slice(0, 120)}`)
}

/** What is left of a daemon that has been destroyed: lines for a test to compare with []. */
export async function remains(daemon: TestDaemon): Promise<string[]> {
  const left = Object.entries(await traces(daemon)).flatMap(([kind, items]) => items.map((item) => `${kind}: ${item}`))
  const { dir, base } = { dir: '/tmp', base: basename(daemon.directory) }
  return (await readdir(dir)).includes(base) ? [...left, `files: ${daemon.directory}`] : left
}
