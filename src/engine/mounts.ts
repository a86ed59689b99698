import { randomBytes } from 'node:crypto'
import { lstat } from 'node:fs/promises'
import { badRequest, notFound } from '../base/errors.js'
import type { MountRequest } from './api-types.js'

/**
 * A mount of a container, resolved when it was created: what `inspect` shows and every start mounts. A volume's driver is `local`; there is no other.
 */
export interface ContainerMount {
  type: 'bind' | 'volume' | 'tmpfs'
  /** Volume's name, '' for others. */
  name: string
  /** The volume has no name of the user's: it goes with the container (`rm -v`, `--rm`). */
  anonymous: boolean
  /** Absolute path on the host; '' for tmpfs. */
  source: string
  /** Part of the volume, relative; '' for all of it. */
  subpath: string
  target: string
  readOnly: boolean
  /** bind: the start makes a source that is missing, as a directory. */
  createSource: boolean
  /** The volume's first use takes what the image has at the target. */
  copyUp: boolean
  /** As {@link MountRequest.options}. */
  options: string[]
  /** Of a volume that is made for this container. */
  labels: Record<string, string>
  driverOptions: Record<string, string>
  from: MountRequest['from'] | 'VolumesFrom' | 'Image'
}

/** Docker's mark of a volume that nobody named. */
export const anonymousLabel = 'com.docker.volume.anonymous'

/** What {@link resolveMounts} works with. */
export interface MountContext {
  /** HostConfig.Binds, .Mounts, .Tmpfs, parsed. */
  requested: readonly MountRequest[]
  /** Config.Volumes, the image's with the user's. */
  volumes: Readonly<Record<string, object>>
  /** HostConfig.VolumesFrom: 'container[:mode]'. */
  volumesFrom: readonly string[]
  /** HostConfig.VolumeDriver. */
  volumeDriver: string
  /** Mounts of another container; throws 404. */
  mountsOf: (container: string) => readonly ContainerMount[]
  mountpoint: (volume: string) => string
}

function checkDriver(name: string): void {
  if (name !== '' && name !== 'local') throw notFound(`error looking up volume plugin ${name}: plugin ${JSON.stringify(name)} not found`)
}

const none = { name: '', anonymous: false, source: '', subpath: '', createSource: false, copyUp: false, options: [], labels: {}, driverOptions: {} }

function volumeMount(context: MountContext, request: Pick<MountRequest, 'source' | 'target' | 'readOnly' | 'options' | 'volume'> & { from: ContainerMount['from'] }): ContainerMount {
  const { volume } = request
  checkDriver(volume?.driver || context.volumeDriver)
  const anonymous = request.source === ''
  const name = anonymous ? randomBytes(32).toString('hex') : request.source
  return {
    ...none, type: 'volume', name, anonymous, source: context.mountpoint(name), subpath: volume?.subpath ?? '', target: request.target, readOnly: request.readOnly,
    copyUp: !volume?.noCopy, options: request.options, labels: { ...volume?.labels, ...(anonymous ? { [anonymousLabel]: '' } : {}) },
    driverOptions: volume?.driverOptions ?? {}, from: request.from,
  }
}

function fromRequest(context: MountContext, request: MountRequest): ContainerMount {
  const { target, readOnly, options, from } = request
  if (request.type === 'bind') return { ...none, type: 'bind', source: request.source, target, readOnly, createSource: request.createSource, options, from }
  if (request.type === 'tmpfs') return { ...none, type: 'tmpfs', target, readOnly, options, from }
  return volumeMount(context, request)
}

/** `--volumes-from`: 'container', 'container:ro', 'container:rw' (moby, ParseVolumesFrom). */
function fromContainer(context: MountContext, spec: string): ContainerMount[] {
  const separator = spec.indexOf(':')
  const reference = separator < 0 ? spec : spec.slice(0, separator)
  const mode = separator < 0 ? 'rw' : spec.slice(separator + 1)
  if (reference === '') throw badRequest(`invalid volumes-from specification: '${spec}'`)
  if (mode.split(',').some((word) => !['ro', 'rw', 'z', 'Z'].includes(word))) throw badRequest(`invalid mode: ${mode}`)
  const readOnly = mode.split(',').includes('ro')
  return context
    .mountsOf(reference)
    .filter((mount) => mount.type !== 'tmpfs')
    .map((mount) => ({ ...mount, readOnly: mount.readOnly || readOnly, copyUp: false, createSource: false, from: 'VolumesFrom' }))
}

/**
 * All mounts of a new container, in Docker's order of precedence (moby, registerMountPoints): other containers' volumes, then what the user asked
 * for, then a volume for each VOLUME of the image that has no mount yet. Nothing is made. 400, 404 for an unknown driver or container.
 */
export function resolveMounts(context: MountContext): ContainerMount[] {
  const byTarget = new Map<string, ContainerMount>()
  for (const spec of context.volumesFrom) for (const mount of fromContainer(context, spec)) byTarget.set(mount.target, mount)
  for (const request of context.requested) byTarget.set(request.target, fromRequest(context, request))
  for (const path of Object.keys(context.volumes)) {
    const target = cleanTarget(path)
    if (byTarget.has(target)) continue
    byTarget.set(target, volumeMount(context, { source: '', target, readOnly: false, options: [], from: 'Image' }))
  }
  return [...byTarget.values()]
}

/** A VOLUME of an image or Config.Volumes: absolute and clean, and not the root. */
function cleanTarget(path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  if (!path.startsWith('/') || path.includes('\0') || parts.includes('..')) throw badRequest(`invalid volume specification: '${path}': mount path must be absolute`)
  if (parts.length === 0) throw badRequest(`invalid volume specification: '${path}': destination can't be '/'`)
  return `/${parts.join('/')}`
}

/** A bind mount of HostConfig.Mounts wants its source to be there: 400 in Docker's words. */
export async function checkSources(mounts: readonly ContainerMount[]): Promise<void> {
  for (const mount of mounts) {
    if (mount.type !== 'bind' || mount.createSource || mount.from !== 'Mounts') continue
    await lstat(mount.source).catch((error: unknown) => {
      throw badRequest(`invalid mount config for type "bind": bind source path does not exist: ${mount.source}`, error)
    })
  }
}
