import { notFound, notImplemented } from '../base/errors.js'
import type { VolumeDetails, VolumeEngine } from './api-types.js'

/** Named volumes are not there yet: there are none, and making one is a 501. */
export class Volumes implements VolumeEngine {
  async list(): Promise<{ volumes: VolumeDetails[]; warnings: string[] }> {
    return { volumes: [], warnings: [] }
  }

  async inspect(name: string): Promise<VolumeDetails> {
    throw notFound(`get ${name}: no such volume`)
  }

  async create(): Promise<VolumeDetails> {
    throw notImplemented('named volumes are not supported by Hull yet')
  }

  async remove(name: string, force: boolean): Promise<void> {
    if (!force) throw notFound(`get ${name}: no such volume`)
  }

  async prune(): Promise<{ deleted: string[]; spaceReclaimed: number }> {
    return { deleted: [], spaceReclaimed: 0 }
  }
}
