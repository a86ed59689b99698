import { createHash } from 'node:crypto'
import { createWriteStream, existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { withProbeArchive } from '../../src/compare/probe/image.js'

const cache = resolve(import.meta.dirname, '../../.cache/images')
const recipe = resolve(import.meta.dirname, '../../src/compare/probe/image.ts')

/** The docker-archive of the image that `hull compare` makes for itself; 20 seconds the first time, kept in .cache/images for as long as its recipe does not change: tests see no network. */
export async function probeArchive(): Promise<string> {
  const archive = join(cache, `probe-${createHash('sha256').update(await readFile(recipe)).digest('hex').slice(0, 16)}.tar`)
  if (existsSync(archive)) return archive
  await mkdir(cache, { recursive: true })
  await withProbeArchive(AbortSignal.timeout(600_000), (upload) => pipeline(upload, createWriteStream(`${archive}.part`)))
  await rename(`${archive}.part`, archive)
  for (const name of await readdir(cache)) if (name.startsWith('probe-') && join(cache, name) !== archive) await rm(join(cache, name), { force: true })
  return archive
}

if (process.argv[1] === import.meta.filename) {
  const archive = await probeArchive()
  console.log(`${archive} ${Math.round((await stat(archive)).size / 1e6)} MB`)
}
