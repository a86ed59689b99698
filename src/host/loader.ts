import { runOk } from '../base/run.js'

/** Milliseconds. */
const PATIENCE = 10_000

/** The shared libraries that a program loads: name → path, as the dynamic loader finds them (ld.so(8), --list); undefined: it does not. Rejects for a program that needs no loader. */
export async function loadedLibraries(loader: string, program: string): Promise<Map<string, string | undefined>> {
  const { stdout } = await runOk(loader, ['--list', program], { env: { PATH: '/usr/bin:/bin' }, timeoutMs: PATIENCE })
  const found = new Map<string, string | undefined>()
  for (const match of stdout.matchAll(/^\s*(\S+) => (?:(\/\S+) \(0x[0-9a-f]+\)|not found)$/gm)) found.set(match[1]!.slice(match[1]!.lastIndexOf('/') + 1), match[2])
  return found
}
