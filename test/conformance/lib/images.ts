import { createHash } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { exec } from '../../lib/daemon.js'

const recipe = resolve(import.meta.dirname, '../images')
const cache = resolve(import.meta.dirname, '../../../.cache/images')

const path = '/usr/lib/postgresql/current/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The images, all of one layer: what differs is how they start, which is as the official images of that name do. */
const images: Record<string, object> = {
  'test/postgres:1': {
    Env: [`PATH=${path}`, 'PGDATA=/var/lib/postgresql/data', 'LANG=C.UTF-8'],
    Entrypoint: ['postgres-entrypoint'], Cmd: ['postgres', '-c', 'listen_addresses=*'], ExposedPorts: { '5432/tcp': {} }, Volumes: { '/var/lib/postgresql/data': {} }, StopSignal: 'SIGINT',
  },
  'test/redis:1': { Env: [`PATH=${path}`], Entrypoint: ['redis-entrypoint'], Cmd: ['redis-server'], ExposedPorts: { '6379/tcp': {} }, Volumes: { '/data': {} }, WorkingDir: '/data' },
  'test/nginx:1': { Env: [`PATH=${path}`], Cmd: ['nginx', '-g', 'daemon off;'], ExposedPorts: { '80/tcp': {} }, StopSignal: 'SIGQUIT' },
  'test/python:1': { Env: [`PATH=${path}`, 'PYTHONUNBUFFERED=1'], Cmd: ['python3', '/srv/app/app.py'], ExposedPorts: { '8000/tcp': {} }, WorkingDir: '/srv/app' },
  'test/node:1': { Env: [`PATH=${path}`], Cmd: ['node', '/srv/app/app.js'], ExposedPorts: { '3000/tcp': {} }, WorkingDir: '/srv/app' },
  'test/reaper:1': { Env: [`PATH=${path}`], Cmd: ['reaper'], ExposedPorts: { '8080/tcp': {} } },
}

/** Every file below a directory, sorted. */
async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name)).toSorted()
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}

/** A name for the archive that changes with anything it is made from, the Debian release included. */
async function key(): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(images)).update(await readFile('/etc/debian_version'))
  for (const file of await filesBelow(recipe)) hash.update(file.slice(recipe.length)).update('\0').update(await readFile(file))
  return hash.digest('hex').slice(0, 16)
}

/**
 * The docker-archive with PostgreSQL, Redis, nginx, Python, Node and Testcontainers' reaper (`test/postgres:1`, …), made of Debian packages: half a minute the first
 * time, kept in .cache/images for as long as nothing in the recipe changes.
 */
export async function serverImages(): Promise<string> {
  const archive = join(cache, `servers-${await key()}.tar`)
  if (existsSync(archive)) return archive
  await mkdir(cache, { recursive: true })
  const scratch = await mkdtemp(join(tmpdir(), 'conformance-image-'))
  try {
    const root = join(scratch, 'root')
    await run(join(recipe, 'build'), [root])
    const layer = join(scratch, 'layer.tar')
    await run('tar', ['--numeric-owner', '--sort=name', '-C', root, '-cf', layer, '.'])
    const diffId = `sha256:${await sha256(layer)}`
    const manifest: object[] = []
    const names = ['manifest.json', 'layer.tar']
    for (const [tag, config] of Object.entries(images)) {
      const text = JSON.stringify({
        architecture: 'amd64', os: 'linux', created: '2026-01-01T00:00:00Z', config, rootfs: { type: 'layers', diff_ids: [diffId] },
        history: [{ created: '2026-01-01T00:00:00Z', created_by: 'test/conformance/images/build' }],
      })
      const name = `${createHash('sha256').update(text).digest('hex')}.json`
      await writeFile(join(scratch, name), text)
      names.push(name)
      manifest.push({ Config: name, RepoTags: [tag], Layers: ['layer.tar'] })
    }
    await writeFile(join(scratch, 'manifest.json'), JSON.stringify(manifest))
    await run('tar', ['-C', scratch, '-cf', `${archive}.part`, ...names])
    await rename(`${archive}.part`, archive)
    // What earlier recipes made is of no use any more.
    for (const name of await readdir(cache)) if (name.startsWith('servers-') && join(cache, name) !== archive) await rm(join(cache, name), { force: true })
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
  return archive
}

async function run(file: string, args: string[]): Promise<void> {
  const said = await exec(file, args, { timeoutMs: 600_000 })
  if (said.code !== 0) throw new Error(`${file} ${args.join(' ')}: exit code ${said.code}\n${said.stderr}`)
}

if (process.argv[1] === import.meta.filename) {
  const archive = await serverImages()
  console.log(`${archive} ${Math.round((await stat(archive)).size / 1e6)} MB`)
}
