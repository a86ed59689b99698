import { closeSync, openSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import type { Server } from 'node:http'
import { release } from 'node:os'
import { join } from 'node:path'
import { closeApiServer, createApiServer } from '../api/server.js'
import { messageOf } from '../base/errors.js'
import { log, setLogLevel } from '../base/log.js'
import { removeContainersIn } from '../oci/cgroups.js'
import { NetworkDirectory } from '../engine/network-directory.js'
import { networkIds } from '../engine/views.js'
import { native } from '../host/native.js'
import { IdleCollector, keepYoungGenerationSmall } from '../host/own-memory.js'
import { releaseAllUserns } from '../host/userns.js'
import { assembleEngine, networkOf } from './assemble.js'
import { type DaemonFlags, parseFlags, UsageError } from './flags.js'
import { listenUnix } from './sockets.js'

/** Holds a directory for this process alone, until it ends (flock(2): a killed daemon holds nothing). */
function lockDirectory(directory: string): number {
  const fd = openSync(join(directory, 'lock'), 'a', 0o600)
  if (native.tryLock(fd)) return fd
  closeSync(fd)
  throw new Error(`another daemon uses ${directory}: choose another --data-root and --exec-root for this one`)
}

async function versionInfo() {
  const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
  return { version, gitCommit: '', buildTime: '', os: 'linux', arch: process.arch === 'x64' ? 'amd64' : process.arch, kernelVersion: release() }
}

/** Deletes what a daemon leaves in the kernel on purpose when it stops, so that workloads go on. */
async function cleanUp(flags: DaemonFlags): Promise<void> {
  const networks = await new NetworkDirectory(join(flags.dataRoot, 'networks'), networkIds(flags.dataRoot)).load()
  await networkOf(flags).stop(true, networks)
  await releaseAllUserns(flags.execRoot)
  await removeContainersIn(flags.cgroupParent)
}

async function serve(flags: DaemonFlags): Promise<void> {
  const engine = await assembleEngine(flags)
  await engine.restore()
  const version = await versionInfo()
  const servers: Server[] = []
  for (const path of flags.sockets) {
    const server = createApiServer(engine, version)
    await listenUnix(server, path, flags.group)
    servers.push(server)
  }
  await writeFile(flags.pidfile, `${process.pid}\n`, { mode: 0o644 })
  const collector = new IdleCollector()
  collector.start()
  log.info('hulld serves', { sockets: flags.sockets, dataRoot: flags.dataRoot, execRoot: flags.execRoot, defaultIsolation: flags.defaultIsolation, pid: process.pid })

  const leave = async (signal: string) => {
    log.info('hulld leaves; workloads stay', { signal })
    collector.stop()
    await Promise.all(servers.map((server) => closeApiServer(server)))
    await engine.leave()
    await Promise.all([...flags.sockets, flags.pidfile].map((path) => rm(path, { force: true })))
    process.exit(0)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      // A daemon that hangs on its way out would be killed by its service manager anyway; better to say so.
      setTimeout(() => {
        log.error('hulld does not come to an end by itself')
        process.exit(1)
      }, 15_000).unref()
      leave(signal).catch((error: unknown) => {
        log.error('hulld did not leave in order', { error: messageOf(error) })
        process.exit(1)
      })
    })
  }
}

/** `hull daemon`: runs in the foreground until SIGTERM or SIGINT. Exit codes: 0 in order, 1 failed, 2 wrong command line. */
export async function runDaemon(argv: string[]): Promise<never> {
  keepYoungGenerationSmall()
  let flags: DaemonFlags
  try {
    flags = parseFlags(argv)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    ;(error.help ? process.stdout : process.stderr).write(`${error.message}\n`)
    process.exit(error.help ? 0 : 2)
  }
  setLogLevel(flags.logLevel)
  if (process.getuid?.() !== 0) {
    process.stderr.write('hull daemon: must be run as root\n')
    process.exit(1)
  }
  // One bug in the handling of one request must not take down what watches over everything else; it is said loudly.
  process.on('unhandledRejection', (reason) => log.error('unhandled rejection', { error: messageOf(reason), stack: reason instanceof Error ? reason.stack : undefined }))
  process.on('SIGPIPE', () => {})
  // dockerd reads its configuration again; ours is the command line. Without a handler it would be the end.
  process.on('SIGHUP', () => log.info('SIGHUP: there is no configuration file to be read again'))
  process.umask(0o022)
  process.chdir('/')
  try {
    await mkdir(flags.dataRoot, { recursive: true, mode: 0o711 })
    await mkdir(flags.execRoot, { recursive: true, mode: 0o711 })
    lockDirectory(flags.dataRoot)
    lockDirectory(flags.execRoot)
    if (flags.cleanup) {
      await cleanUp(flags)
      process.exit(0)
    }
    await serve(flags)
  } catch (error) {
    log.error('hulld cannot start', { error: messageOf(error), stack: error instanceof Error ? error.stack : undefined })
    process.stderr.write(`hull daemon: ${messageOf(error)}\n`)
    process.exit(1)
  }
  return new Promise<never>(() => {})
}
