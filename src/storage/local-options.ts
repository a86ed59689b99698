import { badRequest } from '../base/errors.js'
import { MS } from '../host/mount.js'

/** What mount(2) gets for a volume with options. */
export interface LocalMount {
  source: string
  fstype: string
  /** MS_* */
  flags: number
  data: string
}

const known = ['type', 'o', 'device', 'size']
/** moby volume/local: an option that is nothing without another. */
const required: Record<string, readonly string[]> = { type: ['device'], device: ['type'], o: ['device', 'type'] }

/** Words of mount(8) that are flags of mount(2) and not of the file system. */
const flagWords: Record<string, { set?: number; clear?: number }> = {
  defaults: {}, ro: { set: MS.RDONLY }, rw: { clear: MS.RDONLY }, nosuid: { set: MS.NOSUID }, suid: { clear: MS.NOSUID }, nodev: { set: MS.NODEV }, dev: { clear: MS.NODEV },
  noexec: { set: MS.NOEXEC }, exec: { clear: MS.NOEXEC }, sync: { set: MS.SYNCHRONOUS }, async: { clear: MS.SYNCHRONOUS }, noatime: { set: MS.NOATIME },
  atime: { clear: MS.NOATIME }, nodiratime: { set: MS.NODIRATIME }, diratime: { clear: MS.NODIRATIME }, relatime: { set: MS.RELATIME }, norelatime: { clear: MS.RELATIME },
  strictatime: { set: MS.STRICTATIME }, bind: { set: MS.BIND }, rbind: { set: MS.BIND | MS.REC },
}

/** True for the driver options that need no mount: none. */
export const isPlain = (options: Readonly<Record<string, string>>): boolean => Object.keys(options).length === 0

/**
 * Driver options of the `local` driver as a mount. undefined: a plain directory. 400 in Docker's words for what it does not know, and for
 * file systems other than a bind mount and tmpfs: a file system whose bytes somebody else wrote (a disk image, a network server) would be
 * parsed by the host's kernel, and NFS and CIFS need helpers that look names up; neither is there yet.
 */
export function localMount(options: Readonly<Record<string, string>>): LocalMount | undefined {
  if (isPlain(options)) return undefined
  for (const [name, value] of Object.entries(options)) {
    if (!known.includes(name)) throw badRequest(`invalid option: ${JSON.stringify(name)}`)
    if (value.includes('\0')) throw badRequest(`invalid option: ${JSON.stringify(name)}: it holds a NUL byte`)
    for (const other of required[name] ?? []) if (!options[other]) throw badRequest(`missing required option: ${JSON.stringify(other)}`)
  }
  if (options['size'] !== undefined) throw badRequest('quota size requested but no quota support')
  const source = options['device'] ?? ''
  let flags = 0
  const data: string[] = []
  for (const word of (options['o'] ?? '').split(',').filter(Boolean)) {
    const flag = Object.hasOwn(flagWords, word) ? flagWords[word] : undefined
    if (flag) flags = (flags | (flag.set ?? 0)) & ~(flag.clear ?? 0)
    else data.push(word)
  }
  const fstype = options['type'] ?? ''
  if ((flags & MS.BIND) !== 0) {
    if (!['none', 'bind', ''].includes(fstype)) throw badRequest(`invalid option: "type": a bind mount has type none, not ${fstype}`)
    if (!source.startsWith('/')) throw badRequest(`invalid option: "device": ${source}: a bind mount needs an absolute path`)
    if (data.length > 0) throw badRequest(`invalid option: "o": ${data.join(',')} means nothing to a bind mount`)
    return { source, fstype: '', flags, data: '' }
  }
  if (fstype !== 'tmpfs') throw badRequest(`invalid option: "type": volumes of type ${fstype} are not supported by Hull (tmpfs, and none with o=bind, are)`)
  const bad = data.find((word) => !/^(size|nr_blocks|nr_inodes|mode|uid|gid|huge|mpol)=[\w%.:,=-]+$/.test(word))
  if (bad !== undefined) throw badRequest(`invalid option: "o": tmpfs does not know ${bad}`)
  return { source, fstype, flags, data: data.join(',') }
}
