import { readFile } from 'node:fs/promises'
import { shellWord } from '../../base/shell.js'
import type { CompareContext, Way } from '../context.js'
import type { Subject } from '../types.js'
import type { BareHost } from './bare-host.js'
import { SERVERS, type Probe } from './catalog.js'
import { execute, executeDetached, type ToolOutput } from './exec.js'

/** Seconds that a tool gets beyond its own: emulated machines need some to load one. */
const PATIENCE = 60

/** Where the probes run. */
export interface Place {
  subject: Subject
  title: string
  run: (probe: Probe) => Promise<ToolOutput>
  /** A command line that does it once more. */
  commandOf: (probe: Probe) => string
  close: () => Promise<void>
}

const line = (words: readonly string[]) => words.map(shellWord).join(' ')
const serverOf = ({ figures: [{ id }] }: Probe): readonly string[] => (id === 'network-throughput' ? SERVERS.throughput : id === 'network-latency' ? SERVERS.latency : SERVERS.requests)

/** The first processor that this process may use: containers have the same. */
async function firstProcessor(): Promise<number> {
  return Number(/^Cpus_allowed_list:\s+(\d+)/m.exec(await readFile('/proc/self/status', 'utf8'))?.[1] ?? 0)
}

/** An instance of the tools' image. `host` runs the clients, undefined: nobody can. */
export async function openInstance(context: CompareContext, way: Way, image: string, host: BareHost | { missing: string }): Promise<Place> {
  const { client, instances, signal } = context
  const id = await instances.create({ Image: image, Entrypoint: ['sleep'], Cmd: ['100000'], HostConfig: way.hostConfig })
  try {
    await client.call('POST', `/containers/${id}/start`, { signal })
    for (const server of Object.values(SERVERS)) await executeDetached(client, signal, id, server)
    const { NetworkSettings } = await client.json<{ NetworkSettings: { Networks?: Record<string, { IPAddress?: string }> } }>('GET', `/containers/${id}/json`, { signal })
    const at = { cpu: way.name === 'vm' || way.name === 'vm-cold' ? 0 : await firstProcessor(), address: Object.values(NetworkSettings.Networks ?? {})[0]?.IPAddress ?? '', slow: way.name === 'runsc' }
    return {
      subject: way.name, title: way.title,
      run: (probe) => {
        if (probe.side === 'instance') return execute(client, signal, id, probe.words(at), probe.seconds + PATIENCE)
        if ('missing' in host) throw new Error(`its client: ${host.missing}`)
        return host.run(probe.words(at), probe.seconds + PATIENCE)
      },
      commandOf: (probe) => {
        // As it was done: once before it counts. A file that is written for the first time takes its blocks from the host meanwhile.
        const exec = `docker exec $ID ${line(probe.words(at))}`
        if (probe.side === 'instance') return `ID=$(docker run -d ${[...way.flags, '--entrypoint', 'sleep', line([image, '100000'])].join(' ')}); ${exec} > /dev/null; ${exec}; docker rm -f $ID`
        const start = ['docker run -d', ...way.flags, line([image, ...serverOf(probe)])].join(' ')
        return `ID=$(${start}); sleep 2; IP=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' $ID); ${line(probe.words({ ...at, address: 'ADDRESS' })).replace('ADDRESS', '$IP')}; docker rm -f $ID`
      },
      close: () => instances.remove(id),
    }
  } catch (error) {
    await instances.remove(id)
    throw error
  }
}

/** The bare host as a place: its servers are on a loopback of their own. */
export async function hostPlace(host: BareHost, image: string): Promise<Place> {
  const at = { cpu: await firstProcessor(), address: '127.0.0.1', slow: false }
  for (const server of Object.values(SERVERS)) host.serve(server)
  return {
    subject: 'host', title: 'bare host',
    run: (probe) => host.run(probe.words(at), probe.seconds + PATIENCE, probe.side === 'client'),
    commandOf: (probe) => {
      const enter = 'nsenter --target $(docker inspect -f \'{{.State.Pid}}\' $ID) --net --root --wd --setuid 65534 --setgid 65534'
      const server = probe.side === 'client' ? `${enter} ${line(serverOf(probe))} > /dev/null 2>&1 & SERVER=$!; sleep 2; ` : ''
      return `ID=$(docker run -d --isolation=process --network none -v /tmp ${shellWord(image)} sleep 1000); ${server}${enter} ${line(probe.words(at))}; ${server && 'kill $SERVER; '}docker rm -fv $ID`
    },
    close: () => host.close(),
  }
}
