import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import type { TestDaemon } from '../lib/daemon.js'
import { until } from '../lib/daemon.js'
import { testImage } from '../lib/image.js'

export type Isolation = 'process' | 'vm'

interface Details {
  Id: string
  Name: string
  RestartCount: number
  State: { Status: string; Pid: number; StartedAt: string }
  NetworkSettings: { Ports: Record<string, { HostPort: string }[] | null> }
}

export async function inspect(daemon: TestDaemon, name: string): Promise<Details | undefined> {
  const answer = await daemon.api('GET', `/containers/${name}/json`)
  if (answer.status === 404) return undefined
  if (answer.status !== 200) throw new Error(`inspect ${name}: ${answer.status} ${answer.body}`)
  return JSON.parse(answer.body) as Details
}

/** What a TCP port says before it closes; '' when nobody answers. */
function said(port: number): Promise<string> {
  return new Promise((done) => {
    let text = ''
    const socket = connect(port, '127.0.0.1')
    socket.setTimeout(3000, () => socket.destroy())
    socket.on('data', (chunk) => (text += chunk.toString()))
    socket.on('error', () => {})
    socket.on('close', () => done(text))
  })
}

/** Writes numbered lines for ever, and serves a word on port 80. What a stranger sends to the port must not come into the log. */
const workload = '(while :; do echo served | nc -l -p 80 > /dev/null; done) & i=0; while :; do i=$((i+1)); echo n $i; sleep 0.1; done'

/** Workloads that no kill of the daemon may disturb: one that writes and serves for each isolation, and one that its restart policy brings back all the time. */
export class Steady {
  readonly names: string[]
  private readonly first = new Map<string, Details>()
  private restarts = 0

  constructor(
    readonly daemon: TestDaemon,
    readonly isolations: readonly Isolation[],
    /** Without daemons that die in between, the waits of a restart policy become longer than anybody looks. */
    readonly flapping = true,
  ) {
    this.names = isolations.map((isolation) => `steady-${isolation}`)
  }

  async start(): Promise<void> {
    for (const isolation of this.isolations) {
      await this.daemon.ok('run', '-d', '--name', `steady-${isolation}`, `--isolation=${isolation}`, '-p', '0:80', testImage, 'sh', '-c', workload)
    }
    if (this.flapping) await this.daemon.ok('run', '-d', '--name', 'flapping', '--restart', 'always', '--isolation=process', testImage, 'sh', '-c', 'sleep 0.3; exit 3')
    for (const name of this.names) this.first.set(name, (await inspect(this.daemon, name))!)
  }

  /** The log file's own lines around a number: was it lost by the writer or by the reader? */
  private async around(id: string, number: number): Promise<string> {
    const lines = (await readFile(`${this.daemon.dataRoot}/containers/${id}/container.log`, 'utf8')).split('\n')
    const at = lines.findIndex((line) => line.endsWith(` n ${number}`))
    return lines.slice(Math.max(0, at - 2), at + 5).join('\n')
  }

  /** After a restart of the daemon: the same processes still run, have lost no line, answer on the same ports; the restart policy goes on. */
  async check(): Promise<void> {
    for (const name of this.names) {
      const before = this.first.get(name)!
      const now = await inspect(this.daemon, name)
      if (!now) throw new Error(`${name} is lost`)
      for (const [what, was, is] of [['id', before.Id, now.Id], ['status', 'running', now.State.Status], ['pid', before.State.Pid, now.State.Pid], ['start', before.State.StartedAt, now.State.StartedAt]] as const) {
        if (was !== is) throw new Error(`${name}: ${what} was ${was}, is ${is}`)
      }
      const port = Number(now.NetworkSettings.Ports['80/tcp']?.[0]?.HostPort)
      if (port !== Number(before.NetworkSettings.Ports['80/tcp']?.[0]?.HostPort)) throw new Error(`${name}: its port was ${JSON.stringify(before.NetworkSettings.Ports)}, is ${JSON.stringify(now.NetworkSettings.Ports)}`)
      await until(`${name} answers on port ${port}`, async () => (await said(port)) === 'served\n', 20_000)
      const numbers = [...(await this.daemon.ok('logs', name)).matchAll(/^n (\d+)$/gm)].map((match) => Number(match[1]))
      const wrong = numbers.findIndex((number, index) => number !== index + 1)
      if (wrong >= 0 || numbers.length === 0) throw new Error(`${name}: line ${wrong + 1} of its log is ${numbers[wrong]}; the file has\n${await this.around(before.Id, wrong)}`)
    }
    if (!this.flapping) return
    await until('the restart policy goes on', async () => {
      const flapping = await inspect(this.daemon, 'flapping')
      if (!flapping) throw new Error('the container with a restart policy is lost')
      if (flapping.RestartCount < this.restarts) throw new Error(`RestartCount went from ${this.restarts} to ${flapping.RestartCount}`)
      if (flapping.RestartCount === this.restarts && flapping.State.Status !== 'running') return false
      this.restarts = flapping.RestartCount
      return ['running', 'restarting'].includes(flapping.State.Status)
    }, 70_000)
  }
}
