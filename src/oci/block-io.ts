import { statSync } from 'node:fs'
import { badRequest } from '../base/errors.js'
import type { OciBlockIo } from './spec-types.js'

/** Limits on one device of the host. */
export interface BlockDeviceLimits {
  weight: { path: string; weight: number }[]
  /** bytes and operations in a second */
  readBps: { path: string; rate: number }[]
  writeBps: { path: string; rate: number }[]
  readIops: { path: string; rate: number }[]
  writeIops: { path: string; rate: number }[]
}

const noWeight = (what: string) => `Your kernel does not support Block I/O ${what} or the cgroup is not mounted. ${what === 'weight' ? 'Weight' : 'Weight-device'} discarded.`

function numbers(path: string): { major: number; minor: number } {
  let stat
  try {
    stat = statSync(path)
  } catch {
    throw badRequest(`block device ${path}: no such file or directory`)
  }
  if (!stat.isBlockDevice()) throw badRequest(`${path} is not a block device`)
  const bits = BigInt(stat.rdev) // makedev(3)
  return { major: Number(((bits >> 8n) & 0xfffn) | ((bits >> 32n) & 0xfffff000n)), minor: Number((bits & 0xffn) | ((bits >> 12n) & 0xffffff00n)) }
}

/** runtime-spec blockIO; undefined: nothing to limit. Warnings in Docker's words for what this host cannot. 400 for what is no block device. */
export function blockIoOf(weight: number, devices: BlockDeviceLimits | undefined, support: { blkioWeight: boolean }): { blockIO: OciBlockIo | undefined; warnings: string[] } {
  const blockIO: OciBlockIo = {}
  const warnings: string[] = []
  if (weight > 0) {
    if (support.blkioWeight) blockIO.weight = weight
    else warnings.push(noWeight('weight'))
  }
  if (devices) {
    const weights = devices.weight.map((entry) => ({ ...numbers(entry.path), weight: entry.weight }))
    if (weights.some((entry) => entry.weight < 10 || entry.weight > 1000)) throw badRequest('Range of blkio weight is from 10 to 1000')
    if (weights.length > 0) {
      if (support.blkioWeight) blockIO.weightDevice = weights
      else warnings.push(noWeight('weight_device'))
    }
    const throttle = (list: BlockDeviceLimits['readBps']) => list.map((entry) => ({ ...numbers(entry.path), rate: entry.rate }))
    for (const [key, list] of [['throttleReadBpsDevice', devices.readBps], ['throttleWriteBpsDevice', devices.writeBps], ['throttleReadIOPSDevice', devices.readIops], ['throttleWriteIOPSDevice', devices.writeIops]] as const) {
      if (list.length > 0) blockIO[key] = throttle(list)
    }
  }
  return { blockIO: Object.keys(blockIO).length > 0 ? blockIO : undefined, warnings }
}
