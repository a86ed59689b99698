import { constants } from 'node:fs'
import { mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '../../base/errors.js'
import { MS, mountTmpfs, unmount } from '../../host/mount.js'
import { cleanMessage } from './protocol.js'

/** A VM's own directory, below its runDir: the one place that the jailed processes can write to. */
export const vmDirectory = (runDir: string) => join(runDir, 'vm')

/** Bytes and files that a VM may write there: two frame files of at most 1 MiB each, status, a log. /run is everybody's memory. */
const TMPFS_DATA = 'size=4m,nr_inodes=64,mode=0700'
/** Bytes of the status file that are read. */
const STATUS_LIMIT = 8192

/**
 * Makes the directory of a VM as a tmpfs of its own, so that a VMM that has been taken over can fill that and nothing else, and puts what the
 * supervisor reads into it: root's files, readable by the VM's uid.
 */
export async function makeVmDirectory(runDir: string, uid: number, files: Record<string, Buffer>): Promise<string> {
  const directory = vmDirectory(runDir)
  await removeVmDirectory(runDir)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  try {
    mountTmpfs(directory, `${TMPFS_DATA},uid=${uid},gid=${uid}`, MS.NOSUID | MS.NODEV | MS.NOEXEC)
    await putFiles(runDir, uid, files)
    return directory
  } catch (error) {
    await removeVmDirectory(runDir)
    throw error
  }
}

/** Files for the supervisor of a VM, which may run already: names that are taken there are not followed (EEXIST). */
export async function putFiles(runDir: string, uid: number, files: Record<string, Buffer>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    const file = await open(join(vmDirectory(runDir), name), 'wx', 0o440)
    try {
      await file.writeFile(content)
      await file.chown(0, uid)
    } finally {
      await file.close()
    }
  }
}

/** Removes it with all that is in it. Idempotent. */
export async function removeVmDirectory(runDir: string): Promise<void> {
  const directory = vmDirectory(runDir)
  while (unmount(directory)); // more than one only after a fault
  await rm(directory, { recursive: true, force: true })
}

/** Removes a VM's whole run directory: its own tmpfs and the files beside it. Idempotent. */
export async function removeRunDirectory(runDir: string): Promise<void> {
  await removeVmDirectory(runDir)
  await rm(runDir, { recursive: true, force: true })
}

/** What a supervisor left behind at its end. */
export interface VmStatus {
  code?: number
  oom: boolean
  message: string
}

/** The supervisor's status file. The jailed side wrote it, so: no links, no pipes, no more than a few bytes. `undefined`: there is none. */
export async function readVmStatus(runDir: string): Promise<VmStatus | undefined> {
  let file
  try {
    file = await open(join(vmDirectory(runDir), 'status'), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (['ENOENT', 'ELOOP', 'ENXIO', 'ENOTDIR'].includes(codeOf(error) ?? '')) return undefined
    throw error
  }
  try {
    if (!(await file.stat()).isFile()) return undefined
    const { buffer, bytesRead } = await file.read(Buffer.alloc(STATUS_LIMIT), 0, STATUS_LIMIT, 0)
    return parseVmStatus(buffer.subarray(0, bytesRead).toString('utf8'))
  } finally {
    await file.close()
  }
}

/** `code=N\noom=0|1\nmessage=…` (guest/PROTOCOL.md, Life of a VM). */
export function parseVmStatus(text: string): VmStatus {
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(text)?.[1]
  const code = /^[0-9]{1,3}$/.test(value('code') ?? '') ? Number(value('code')) : undefined
  return { ...(code !== undefined && code <= 255 ? { code } : {}), oom: value('oom') === '1', message: cleanMessage(value('message') ?? '') }
}

/** Last lines of QEMU's own words, for an error message; '' when it said nothing. */
export async function readQemuLog(runDir: string): Promise<string> {
  try {
    const file = await open(join(vmDirectory(runDir), 'qemu.log'), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      if (!(await file.stat()).isFile()) return ''
      const { buffer, bytesRead } = await file.read(Buffer.alloc(STATUS_LIMIT), 0, STATUS_LIMIT, 0)
      return cleanMessage(buffer.subarray(0, bytesRead).toString('utf8'))
    } finally {
      await file.close()
    }
  } catch {
    return ''
  }
}
