import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Client } from '../cli/client.js'
import { ApiError } from '../cli/errors.js'

const LABEL = 'org.hull.compare'

/** Start time of a process, clock ticks since boot (proc(5), stat, field 22); '' when there is none. With its pid it names a process for good. */
async function startTime(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? ''
}

/** The containers of one comparison. Each has a label that names this process: what a comparison left that was killed is found by the next. */
export class Instances {
  readonly #ids = new Set<string>()

  private constructor(
    private readonly client: Client,
    private readonly owner: string,
  ) {}

  /** Removes what comparisons left whose process is gone. */
  static async open(client: Client): Promise<Instances> {
    const rows = await client.json<{ Id: string; Labels: Record<string, string> | null }[]>('GET', '/containers/json', { query: { all: true, filters: JSON.stringify({ label: [LABEL] }) } })
    for (const { Id, Labels } of rows) {
      const [pid = '', started = ''] = (Labels?.[LABEL] ?? '').split(' ')
      if (started === '' || (await startTime(Number(pid))) !== started) await remove(client, Id)
    }
    return new Instances(client, `${process.pid} ${await startTime(process.pid)}`)
  }

  /** Creates a container; its id. `body` is a create request of the Engine API. */
  async create(body: Record<string, unknown>): Promise<string> {
    // The name is ours before the daemon has answered: what a lost connection hides is found by it.
    const name = `hull-compare-${randomBytes(6).toString('hex')}`
    this.#ids.add(name)
    const { Id } = await this.client.json<{ Id: string }>('POST', '/containers/create', { query: { name }, body: { ...body, Labels: { [LABEL]: this.owner } } })
    this.#ids.add(Id)
    this.#ids.delete(name)
    return Id
  }

  async remove(id: string): Promise<void> {
    await remove(this.client, id)
    this.#ids.delete(id)
  }

  /** It went by itself (AutoRemove). */
  gone(id: string): void {
    this.#ids.delete(id)
  }

  /** All that are left. */
  async removeAll(): Promise<void> {
    await Promise.all([...this.#ids].map((id) => this.remove(id)))
  }
}

async function remove(client: Client, id: string): Promise<void> {
  try {
    await client.call('DELETE', `/containers/${id}`, { query: { force: true, v: true } })
  } catch (error) {
    if (!(error instanceof ApiError) || (error.statusCode !== 404 && error.statusCode !== 409)) throw error // 409: it is going already
  }
}
