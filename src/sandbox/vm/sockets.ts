import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf } from '../../base/errors.js'
import { log } from '../../base/log.js'
import { type Connection, StartFailure, type VmClient } from './client.js'
import { connectSocket, LinkClosed } from './link.js'

/** A unix socket of the host that a VM has as a mount. */
export interface SharedSocket {
  /** Its place among the container's mounts. */
  index: number
  /** Absolute path on the host: from the container's configuration, never from the guest. */
  path: string
}

/** Connections of one VM at a time that are joined to anything, so that a guest cannot use up the supervisor's streams: exec needs them too. */
const MOST = 48
/** Milliseconds before another try when the guest refused. */
const PAUSE = 1000

/**
 * Joins a guest's connections to sockets of the host. As long as the daemon lives: what is open breaks off when it ends; the next daemon takes new ones.
 */
export class SocketProxy {
  private stopped = false
  private open = 0
  private readonly waiting = new Set<() => void>()
  private readonly connections = new Set<Connection>()

  constructor(
    private readonly client: Pick<VmClient, 'accept'>,
    private readonly sockets: readonly SharedSocket[],
  ) {}

  /** Once, when the workload runs. */
  start(): void {
    for (const socket of this.sockets) {
      this.serve(socket).catch((error: unknown) => log.error('a socket of a virtual machine is not served any more', { path: socket.path, error: messageOf(error) }))
    }
  }

  /** The machine has ended, or is not ours any more. */
  stop(): void {
    this.stopped = true
    for (const connection of this.connections) connection.close()
    this.wake()
  }

  private wake(): void {
    const woken = [...this.waiting]
    this.waiting.clear()
    for (const resolve of woken) resolve()
  }

  private get full(): boolean {
    return this.open >= MOST && !this.stopped
  }

  /** Resolves when a connection has ended: there may be room, for the first that looks. */
  private change(): Promise<void> {
    return new Promise((resolve) => this.waiting.add(resolve))
  }

  private async serve(socket: SharedSocket): Promise<void> {
    while (!this.stopped) {
      while (this.full) await this.change()
      try {
        const connection = await this.client.accept(socket.index)
        // The last place may have become another socket's meanwhile. Not taken before: who waits for nobody would keep it from those that are in use.
        while (this.full) await this.change()
        if (this.stopped) return connection.close()
        this.open++
        void this.join(connection, socket.path).finally(() => {
          this.open--
          this.wake()
        })
      } catch (error) {
        if (error instanceof LinkClosed || this.stopped) return
        if (!(error instanceof StartFailure)) throw error
        await sleep(PAUSE)
      }
    }
  }

  /** Never rejects. */
  private async join(connection: Connection, path: string): Promise<void> {
    this.connections.add(connection)
    try {
      const host = await connectSocket(path, undefined)
      host.on('error', () => connection.close())
      connection.duplex.on('error', () => host.destroy())
      connection.duplex.pipe(host)
      host.pipe(connection.duplex)
      await connection.exited
      host.destroySoon()
    } catch (error) {
      // The guest sees its connection end, as it would from a server that closes at once.
      log.debug('cannot connect a virtual machine to a socket', { path, error: messageOf(error) })
      connection.close()
    } finally {
      this.connections.delete(connection)
    }
  }
}
