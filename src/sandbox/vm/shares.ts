import { statSync } from 'node:fs'
import { realpath, stat } from 'node:fs/promises'
import { badRequest } from '../../base/errors.js'
import { propagationOf } from '../../oci/propagation.js'
import type { MountSpec } from '../types.js'
import type { SharedSocket } from './sockets.js'

/** A directory or file of the host that a VM sees through its file server as /INDEX. */
export interface Share {
  /** Place in {@link MountSpec}s, and name below the server's root. */
  index: number
  /** Absolute path on the host. */
  source: string
  file: boolean
  readOnly: boolean
  /** As {@link MountSpec.options}. */
  options: string[]
}

/** A directory or regular file that is there. */
export function isShareable(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false })
  return found !== undefined && (found.isDirectory() || found.isFile())
}

/** What makes a mount impossible in a VM, whatever is at its source: 400. For create. */
export function checkShare(mount: MountSpec): void {
  if (mount.type === 'tmpfs') return
  if (propagationOf(mount.options).endsWith('shared')) {
    throw badRequest(`isolation vm: a mount inside a virtual machine cannot appear on the host: ${mount.target} cannot be ${propagationOf(mount.options)}; use rslave or rprivate`)
  }
  if (mount.target.startsWith('/proc/') || mount.target === '/proc') throw badRequest(`isolation vm: ${mount.target} cannot be mounted because it is inside /proc`)
}

/** A unix socket of the host as CONFIG tells it. */
export interface SocketMount extends SharedSocket {
  mode: number
  uid: number
  gid: number
}

/** The shares and sockets of a VM, in the order of its mounts. 400 for a source that is not there, and for what only the host's kernel can serve. For start. */
export async function sharesOf(mounts: readonly MountSpec[]): Promise<{ shares: Share[]; sockets: SocketMount[] }> {
  const shares: Share[] = []
  const sockets: SocketMount[] = []
  for (const [index, mount] of mounts.entries()) {
    if (mount.type === 'tmpfs') continue
    const found = await stat(mount.source).catch((error: unknown) => {
      throw badRequest(`invalid mount config for type "bind": bind source path does not exist: ${mount.source}`, error)
    })
    if (found.isSocket()) {
      sockets.push({ index, path: await realpath(mount.source), mode: found.mode & 0o777, uid: found.uid, gid: found.gid })
      continue
    }
    if (!found.isDirectory() && !found.isFile()) {
      const kind = found.isFIFO() ? 'named pipe' : 'device'
      throw badRequest(`isolation vm: ${mount.source} is a ${kind}, which a virtual machine cannot share with the host; use --isolation process`)
    }
    shares.push({ index, source: mount.source, file: !found.isDirectory(), readOnly: mount.readOnly, options: mount.options })
  }
  return { shares, sockets }
}
