import { closeSync } from 'node:fs'
import { mkdir, open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { connectedListener } from '../../host/streams.js'
import { Supervised, type SupervisedOptions } from '../../oci/supervised.js'
import { rootPropagation } from '../../oci/propagation.js'
import { serialize } from '../../oci/spec-types.js'
import { fileServerConfig } from './fileserver-jail.js'
import { fileServerArguments, type FileServerParts } from './fileserver-parts.js'
import type { VmSize } from './resources.js'
import type { Share } from './shares.js'

/** What a file server is started with. */
export interface FileServerInput {
  /** Of the VM's own jail; the server's names and paths follow from them. */
  vm: SupervisedOptions
  parts: FileServerParts
  guestDir: string
  shares: readonly Share[]
  size: VmSize
}

/** Its run directory, below the VM's. */
export const fileServerDirectory = (runDir: string) => join(runDir, 'mounts')

/** A supervised container beside the VM's own: hull-monitor and crun as for everything, no log (a guest could fill it). */
function optionsOf(vm: SupervisedOptions): SupervisedOptions {
  return {
    id: `${vm.id}-mounts`, runDir: fileServerDirectory(vm.runDir), exitDir: vm.exitDir, runtime: vm.runtime, cgroupPath: `${vm.cgroupPath}-mounts`, logPath: '', tty: false, stdin: false,
    leaveStdinOpen: false, attempt: { command: 'virtiofsd', cwd: '/' },
  }
}

/**
 * The file server of one VM: virtiofsd in a jail of its own. It ends by itself when its only client, QEMU, has gone, and the VM ends when it does (hull-vmm watches the
 * connection): a guest without its file server would wait for ever.
 */
export class FileServer {
  private constructor(private readonly supervised: Supervised) {}

  /**
   * Starts it. `connection` is the client's end of its socket, for QEMU; the caller closes it. On failure nothing is left but files in the run directory, which are the caller's.
   */
  static async start(input: FileServerInput): Promise<{ server: FileServer; connection: number }> {
    const options = optionsOf(input.vm)
    const skeleton = join(options.runDir, 'shares')
    await mkdir(skeleton, { recursive: true, mode: 0o755 })
    for (const share of input.shares) {
      const place = join(skeleton, String(share.index))
      if (share.file) await (await open(place, 'a', 0o444)).close()
      else await mkdir(place, { recursive: true, mode: 0o555 })
    }
    const config = fileServerConfig({
      root: input.parts.root, args: await fileServerArguments(input.parts, input.guestDir), skeleton, shares: input.shares, hostname: 'hull-mounts', cgroupsPath: options.cgroupPath,
      ram: input.size.ram, limits: input.size.jail,
      rootfsPropagation: await rootPropagation(input.shares.map((share) => ({ type: 'bind', source: share.source, target: '/', readOnly: false, options: share.options }))),
    })
    await writeFile(join(options.runDir, 'config.json'), serialize(config), { mode: 0o600 })
    const { listener, client } = connectedListener(options.runDir)
    try {
      const supervised = await Supervised.create({ ...options, preserveFds: [listener] })
      try {
        await supervised.start()
      } catch (error) {
        await supervised.destroy()
        throw error
      }
      return { server: new FileServer(supervised), connection: client }
    } catch (error) {
      closeSync(client)
      throw error
    } finally {
      closeSync(listener)
    }
  }

  /** The server of a VM that an earlier daemon started; `undefined`: it has none. */
  static async adopt(vm: SupervisedOptions): Promise<FileServer | undefined> {
    const supervised = await Supervised.adopt(optionsOf(vm))
    return supervised && new FileServer(supervised)
  }

  /** Removes what a start that was cut off left, but for the run directory. Nothing to do: no error. */
  static async removeLeftovers(vm: SupervisedOptions): Promise<void> {
    await Supervised.removeLeftovers(optionsOf(vm))
  }

  /** Host pid of virtiofsd. */
  get pid(): number {
    return this.supervised.pid
  }

  get monitorPid(): number {
    return this.supervised.monitorPid
  }

  /** Ends it and frees all that it had in the kernel. Idempotent. */
  async destroy(): Promise<void> {
    await this.supervised.destroy()
  }
}
