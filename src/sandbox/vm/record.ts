import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '../../base/errors.js'
import type { FileServerParts } from './fileserver-parts.js'
import type { Accelerator } from './qemu.js'
import type { SharedSocket } from './sockets.js'

/** What a driver knows of a running VM, in runDir/vm.json: a later daemon needs it. */
export interface VmRecord {
  version: 1
  uid: number
  accelerator: Accelerator
  vcpus: number
  /** bytes */
  ram: number
  /** Root of the jail on the host. */
  jailRoot: string
  /** '/parent/id' */
  cgroupsPath: string
  /** As in {@link Machine} (qemu.ts); absent: 0. */
  imageSlot?: number
  /** How it came to life; absent: it booted. */
  start?: 'template' | 'image' | 'pool'
  /** Of the VM's file server, when it has one. */
  fileServer?: FileServerParts
  /** Sockets of the host that it has. */
  sockets?: SharedSocket[]
}

/** Name of the file below runDir. */
const RECORD = 'vm.json'

/** Writes the record. No fsync: it tells of processes, and does not outlive them through a crash of the host. */
export async function writeRecord(runDir: string, record: VmRecord): Promise<void> {
  const path = join(runDir, RECORD)
  await writeFile(`${path}.tmp`, JSON.stringify(record), { mode: 0o600 })
  await rename(`${path}.tmp`, path)
}

/** The record of a VM that an earlier daemon made; `undefined`: none, or not one of ours. */
export async function readRecord(runDir: string): Promise<VmRecord | undefined> {
  let value: unknown
  try {
    value = JSON.parse(await readFile(join(runDir, RECORD), 'utf8'))
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined
    throw error
  }
  if (typeof value !== 'object' || value === null) return undefined
  const { version, uid, accelerator, vcpus, ram, jailRoot, cgroupsPath, imageSlot, start, fileServer, sockets } = value as Record<string, unknown>
  if (version !== 1 || typeof uid !== 'number' || typeof vcpus !== 'number' || typeof ram !== 'number') return undefined
  if ((accelerator !== 'kvm' && accelerator !== 'tcg') || typeof jailRoot !== 'string' || typeof cgroupsPath !== 'string') return undefined
  const record: VmRecord = { version, uid, accelerator, vcpus, ram, jailRoot, cgroupsPath }
  if (typeof imageSlot === 'number') record.imageSlot = imageSlot
  if (start === 'template' || start === 'image' || start === 'pool') record.start = start
  // Our own words in a directory that is root's: only that it is there is checked.
  if (typeof fileServer === 'object' && fileServer !== null) record.fileServer = fileServer as FileServerParts
  if (Array.isArray(sockets)) record.sockets = sockets as SharedSocket[]
  return record
}
