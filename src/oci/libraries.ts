import { existsSync, statSync } from 'node:fs'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import { runOk } from '../base/run.js'
import { loadedLibraries } from '../host/loader.js'
import { disarm, neededWithout } from './disarm.js'

/** A program, and the libraries that it never calls as it is called here. */
export interface LightProgram {
  path: string
  never: readonly string[]
}

/** systemd's library is for its cgroup manager, its journal and its notices: crun is called with `--cgroup-manager=cgroupfs`, without `--log journald:` and without NOTIFY_SOCKET. */
export const CRUN_NEVER_CALLS = ['libsystemd.so.0'] as const

const PATIENCE = 10_000
const LOADERS = ['/lib64/ld-linux-x86-64.so.2', '/lib/ld-linux-aarch64.so.1']
/** What the loader of these programs is told; '' when they get on with their libraries as they are. By directory. */
const known = new Map<string, { files: readonly string[]; state: string; made: Promise<string> }>()

/** Changes with every file that a package upgrade replaces. */
const stateOf = (files: readonly string[]): string => files.map((path) => {
  const s = statSync(path, { throwIfNoEntry: false })
  return s ? `${s.ino} ${s.size} ${s.mtimeMs}` : ''
}).join('\n')

/** The libraries of {@link LightProgram.never} that none of the programs needs otherwise: name → path. */
async function unused(loader: string, programs: readonly LightProgram[]): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  const needed = new Set<string>()
  for (const { path, never } of programs) {
    const libraries = await loadedLibraries(loader, path)
    const contents = new Map(await Promise.all([...libraries].flatMap(([name, file]) => (file === undefined ? [] : [readFile(file).then((content) => [name, content] as const)]))))
    for (const [name, disarmed] of neededWithout([await readFile(path)], (name) => contents.get(name), new Set(never))) {
      const file = libraries.get(name)
      if (disarmed && file !== undefined) found.set(name, file)
      else needed.add(name)
    }
  }
  return new Map([...found].filter(([name]) => !needed.has(name)))
}

async function make(directory: string, programs: readonly LightProgram[], libraries: ReadonlyMap<string, string>): Promise<string> {
  if (libraries.size === 0) return ''
  await mkdir(directory, { recursive: true, mode: 0o700 })
  for (const [name, path] of libraries) {
    const to = join(directory, name)
    await writeFile(`${to}.tmp`, disarm(await readFile(path)), { mode: 0o600 })
    await rename(`${to}.tmp`, to) // who has the old one mapped keeps it
  }
  for (const { path } of programs) await runOk(path, ['--version'], { env: { PATH: '/usr/bin:/bin', LD_LIBRARY_PATH: directory }, timeoutMs: PATIENCE })
  return directory
}

async function prepare(directory: string, loader: string, programs: readonly LightProgram[], remember: (files: readonly string[]) => void): Promise<string> {
  try {
    if (/[:;]/.test(directory)) return ''
    const libraries = await unused(loader, programs)
    remember([...programs.map(({ path }) => path), ...libraries.values()])
    return await make(directory, programs, libraries)
  } catch (error) {
    log.debug('programs are started with all of their libraries', { programs: programs.map(({ path }) => path), error: messageOf(error) })
    return ''
  }
}

/**
 * What to add to the environment of programs so that libraries which they are linked with and never call cost them nothing: copies in `directory` without code and without libraries of their own (disarm.ts). Debian's crun
 * brings systemd's library, and by it seven more: a third of the page faults of its start (273, then 170). Made once, and anew when one of the files has been replaced. Without effect where it does not work. Never rejects.
 */
export async function lightEnvironment(directory: string, programs: readonly LightProgram[]): Promise<Record<string, string>> {
  const loader = LOADERS.find((path) => existsSync(path))
  if (loader === undefined) return {}
  let entry = known.get(directory)
  if (!entry || entry.state !== stateOf(entry.files)) {
    const files: readonly string[] = programs.map(({ path }) => path)
    const remember = (all: readonly string[]) => {
      const current = known.get(directory)
      if (current) known.set(directory, { ...current, files: all, state: stateOf(all) })
    }
    entry = { files, state: stateOf(files), made: prepare(directory, loader, programs, remember) }
    known.set(directory, entry)
  }
  const path = await entry.made
  return path === '' ? {} : { LD_LIBRARY_PATH: path }
}
