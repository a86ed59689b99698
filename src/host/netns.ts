import { statfs, readlink, stat } from 'node:fs/promises'
import { codeOf } from '../base/errors.js'
import { native } from './native.js'

/** statfs(2) type of namespace files (linux/magic.h). */
const NSFS_MAGIC = 0x6e736673

/** Makes a network namespace with `lo` up and mounts it on the new file `path` (EEXIST when there is one). Nothing is left on failure. */
export function createNetns(path: string): Promise<void> {
  return native.netnsCreate(path)
}

/** Frees a namespace of {@link createNetns}; the kernel ends it with its last process. No error when it is gone. */
export function deleteNetns(path: string): void {
  native.netnsDelete(path)
}

/** True if a namespace is mounted on `path`; false for a plain file (left over from before a boot) or none. */
export async function isNetns(path: string): Promise<boolean> {
  try {
    return (await statfs(path)).type === NSFS_MAGIC
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false
    throw error
  }
}

/** The kernel's id of a namespace: the inode that `ip netns` and /proc/PID/ns/net show. ENOENT when it is gone. */
export async function netnsId(path: string): Promise<number> {
  return (await stat(path)).ino
}

/** The id of a process's network namespace; default: our own. */
export async function netnsIdOf(pid: number | 'self' = 'self'): Promise<number> {
  const text = await readlink(`/proc/${pid}/ns/net`)
  return Number(/\[(\d+)\]/.exec(text)?.[1])
}

/** An interface inside a namespace. */
export interface InterfaceConfig {
  name: string
  /** aa:bb:cc:dd:ee:ff; left as it is without. */
  mac?: string
  /** IPv4, dotted. */
  address: string
  prefixLength: number
  /** Default route; none without. */
  gateway?: string
}

/** Sets address and route inside the namespace at `path`, and brings the interface up. Again with the same values: nothing changes. */
export function configureInterface(path: string, config: InterfaceConfig): Promise<void> {
  return native.netnsConfigure(path, config.name, config.mac ?? '', config.address, config.prefixLength, config.gateway ?? '')
}

/** Adds an IPv6 address inside the namespace at `path`; no error when it is there. */
export function addNetnsAddress6(path: string, name: string, address: string, prefixLength: number): Promise<void> {
  return native.netnsAddress6(path, name, address, prefixLength)
}

/** Default routes by the interface `name` inside the namespace at `path`; '' takes away that family's. */
export function setNetnsRoute(path: string, name: string, gateway: string, gateway6 = ''): Promise<void> {
  return native.netnsRoute(path, name, gateway, gateway6)
}

/** Deletes an interface inside the namespace at `path` (the other end of a veth with it); no error when it is gone. */
export function deleteNetnsLink(path: string, name: string): Promise<void> {
  return native.netnsLinkDelete(path, name)
}
