import { spawn } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Readable, Writable } from 'node:stream'
import { fileArguments, fileJob, type FileJob, type FileOperation } from '../files.js'
import type { MountSpec, WorkloadSpec } from '../types.js'
import type { MappedOwners, MountedSnapshot } from './store.js'

/** Built by native/files/Makefile. */
const program = fileURLToPath(new URL('../../../build/hull-files', import.meta.url))

function start(args: string[], operation: FileOperation, join?: number): FileJob {
  const child = spawn(program, [...args, ...fileArguments(operation)], {
    stdio: ['pipe', 'pipe', 'pipe', ...(join === undefined ? [] : [join])],
    env: {},
    cwd: '/',
  })
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, signal) => resolve(signal ?? `exit code ${code}`))
  })
  return fileJob(
    { stdin: child.stdin as Writable, stdout: child.stdout as Readable, stderr: child.stderr as Readable, ended, kill: () => void child.kill('SIGKILL') },
    operation,
  )
}

/** The container's ids in the archives, whatever they are on the host. */
function mapArguments(map: WorkloadSpec['idMap']): string[] {
  if (!map) return []
  const lines = (flag: string, mappings: NonNullable<WorkloadSpec['idMap']>['uids']) => mappings.flatMap((line) => [flag, `${line.containerId}:${line.hostId}:${line.count}`])
  return [...lines('--uid-map', map.uids), ...lines('--gid-map', map.gids)]
}

/** hull-files in the mount namespace of a running container: it sees what the container's processes see, volumes and tmpfs and all. */
export async function filesOfRunning(
  pid: number,
  isRunning: () => Promise<boolean>,
  spec: Pick<WorkloadSpec, 'idMap'>,
  operation: FileOperation,
): Promise<FileJob | undefined> {
  let namespace: number
  try {
    namespace = openSync(`/proc/${pid}/ns/mnt`, 'r')
  } catch {
    return undefined
  }
  try {
    // Asked after opening: then the number has meant this container when it was used.
    return (await isRunning()) ? start(['--join', '3', ...mapArguments(spec.idMap)], operation, namespace) : undefined
  } finally {
    closeSync(namespace)
  }
}

/**
 * Docker mounts binds and volumes for `docker cp`, outer ones first; a tmpfs of a container that does not run has no content. What is not there now
 * (a volume with options, a bind whose source is gone) is left out.
 */
function mountArguments(mounts: readonly MountSpec[], owners: MappedOwners | undefined): string[] {
  const how = (mount: MountSpec) => `${mount.readOnly ? 'ro' : 'rw'}${owners && mount.type === 'volume' ? 'm' : ''}`
  return [
    ...(owners ? ['--userns', owners.userns] : []),
    ...[...mounts]
      .filter((mount) => mount.type !== 'tmpfs' && existsSync(mount.source))
      .sort((a, b) => a.target.split('/').length - b.target.split('/').length)
      .flatMap((mount) => ['--mount', how(mount), mount.source, mount.target]),
  ]
}

/** hull-files on the container's directories. For stat, get, put and export its overlay is mounted at `merged`. */
export function filesOfStored(
  spec: Pick<WorkloadSpec, 'layers' | 'mounts' | 'readOnlyRootfs' | 'idMap'>,
  snapshot: MountedSnapshot,
  operation: FileOperation,
  owners?: MappedOwners,
): FileJob {
  const map = mapArguments(spec.idMap)
  switch (operation.op) {
    case 'layer':
    case 'size':
      return start(['--root', snapshot.upper, ...map], operation)
    case 'changes':
      return start(['--root', snapshot.upper, ...map, ...spec.layers.flatMap((layer) => ['--lower', layer])], operation)
    case 'export':
      return start(['--root', snapshot.merged, ...map], operation)
    default:
      return start(['--root', snapshot.merged, ...map, ...(spec.readOnlyRootfs ? ['--read-only'] : []), ...mountArguments(spec.mounts, owners)], operation)
  }
}
