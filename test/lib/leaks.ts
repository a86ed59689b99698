import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { exec } from './daemon.js'

/** Everything of the engine's that the kernel knows, by kind: a leak check compares two of these. */
export type Snapshot = Record<'links' | 'mounts' | 'cgroups' | 'nft' | 'processes' | 'namespaces' | 'files', string[]>

async function findCgroups(directory: string, depth = 0): Promise<string[]> {
  const found: string[] = []
  if (depth > 6) return found
  for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
    if (!entry.isDirectory()) continue
    const path = join(directory, entry.name)
    if (path.includes('hull')) found.push(path)
    found.push(...(await findCgroups(path, depth + 1)))
  }
  return found
}

async function processes(): Promise<string[]> {
  const found: string[] = []
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0')
    const name = command[0]?.split('/').pop() ?? ''
    if (/^(hull-monitor|crun|runc|qemu-system-.*|hull-vmm|hulld|bwrap|virtiofsd|hull-unpack)$/.test(name)) found.push(`${pid} ${command.join(' ').slice(0, 160)}`)
    else if (command.some((word) => word.endsWith('bin/hull') || word.endsWith('daemon/main.js')) && command.includes('daemon')) found.push(`${pid} ${command.join(' ').slice(0, 160)}`)
  }
  return found
}

/** Reads what is there now. */
export async function snapshot(): Promise<Snapshot> {
  const [links, mounts, nft, namespaces] = await Promise.all([
    exec('ip', ['-o', 'link']),
    readFile('/proc/self/mounts', 'utf8'),
    exec('nft', ['list', 'ruleset']),
    exec('lsns', ['-n', '-t', 'net', '-o', 'NS,NSFS']),
  ])
  const tables = nft.stdout.split('\n')
  return {
    links: links.stdout.split('\n').map((line) => line.split(':')[1]?.trim().split('@')[0] ?? '').filter((name) => name !== ''),
    mounts: mounts.split('\n').filter((line) => /hull/.test(line)).map((line) => line.split(' ')[1]!),
    cgroups: await findCgroups('/sys/fs/cgroup'),
    nft: tables.filter((line) => /hull/.test(line)).map((line) => line.trim()),
    processes: await processes(),
    namespaces: namespaces.stdout.split('\n').map((line) => line.trim()).filter((line) => line.includes('/')),
    files: [
      ...(await readdir('/run').catch(() => [])).filter((name) => name.startsWith('hull')).map((name) => `/run/${name}`),
      ...(await readdir('/tmp').catch(() => [])).filter((name) => name.startsWith('hull-')).map((name) => `/tmp/${name}`),
      ...(await readdir('/run/netns').catch(() => [])).map((name) => `/run/netns/${name}`),
    ],
  }
}

/** What `after` has that `before` had not: one line a leak. */
export function leaks(before: Snapshot, after: Snapshot): string[] {
  const found: string[] = []
  for (const kind of Object.keys(after) as (keyof Snapshot)[]) {
    const known = new Set(before[kind])
    for (const item of after[kind]) if (!known.has(item)) found.push(`${kind}: ${item}`)
  }
  return found
}

/** {@link leaks} when the kernel has had time: namespaces and cgroups go a moment after their last process. At most 12 seconds. */
export async function remaining(before: Snapshot): Promise<string[]> {
  for (let attempt = 0; ; attempt++) {
    const left = leaks(before, await snapshot())
    if (left.length === 0 || attempt === 60) return left
    await new Promise((done) => setTimeout(done, 200))
  }
}
