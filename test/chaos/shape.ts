import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestDaemon } from '../lib/daemon.js'
import { traces } from '../lib/traces.js'

/** Random names that stay in number: what they are called does not matter. */
const nameless = (text: string) => text.replaceAll(/\b[0-9a-f]{64}\b/g, 'ID').replaceAll(/\b([si])[0-9a-z]{7}$/g, '$1…').replaceAll(/^(h[vt][0-9a-z]{5}-)\w+$/g, '$1…')

async function tree(directory: string, depth: number): Promise<string[]> {
  const found: string[] = []
  for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
    const path = join(directory, entry.name)
    found.push(path)
    // What containers and images hold is theirs; that they are there, and nothing beside them, is what is looked at.
    if (entry.isDirectory() && depth > 1 && !/\/(upper|work|merged|layers\/[0-9a-f]{64}|vm\/jail-[^/]+|_data)$/.test(path)) found.push(...(await tree(path, depth - 1)))
  }
  return found
}

/**
 * All that a daemon has in the kernel and on disk, with ids made anonymous and sorted: equal before a verb and after it has been undone, or something was lost,
 * doubled or leaked. Without memory templates that are whole, and the directory of the machines that work on files: they come when first wanted, and stay. Without the sleep that the neighbours' loops start ten times a
 * second: a first look between two of them made every later one a leak. One that outlived its container would have a cgroup.
 */
export async function shape(daemon: TestDaemon): Promise<string[]> {
  const kernel = await traces(daemon)
  const lines = [
    ...Object.entries(kernel).flatMap(([kind, items]) => items.map((item) => `${kind}: ${nameless(kind === 'processes' ? (item.split(' ')[1] ?? '').split('/').pop()! : kind === 'namespaces' ? (item.split(' ')[1] ?? '') : item)}`)),
    ...(await tree(daemon.dataRoot, 4)).filter((path) => !/\/vm\/templates(\/[0-9a-f]{32}(\/\w+(\.json)?)?)?$/.test(path)).map((path) => `file: ${nameless(path)}`),
    ...(await tree(daemon.execRoot, 4)).filter((path) => path !== join(daemon.execRoot, 'files')).map((path) => `file: ${nameless(path)}`),
  ]
  return lines.filter((line) => line !== 'processes: sleep').sort()
}

/** Lines that one has more often than the other: '+' too many, '-' missing. */
export function difference(before: readonly string[], after: readonly string[]): string[] {
  const count = new Map<string, number>()
  for (const line of after) count.set(line, (count.get(line) ?? 0) + 1)
  for (const line of before) count.set(line, (count.get(line) ?? 0) - 1)
  return [...count].filter(([, n]) => n !== 0).map(([line, n]) => `${n > 0 ? '+' : '-'}${Math.abs(n)} ${line}`)
}
