import { testImage } from '../lib/image.js'
import type { TestDaemon } from '../lib/daemon.js'
import type { Isolation } from './steady.js'

/** Calls that must not fail; `allowed`: further statuses that are in order. */
export async function must(daemon: TestDaemon, method: string, path: string, body?: unknown, allowed: number[] = []): Promise<string> {
  const answer = await daemon.api(method, path, body)
  if (answer.status >= 400 && !allowed.includes(answer.status)) throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`)
  return answer.body
}

/** One verb that is interrupted. Everything it makes is called `victim`, so that what is left of the last time is in the way of the next. */
export interface Verb {
  name: string
  /** 'any': does not touch a sandbox. */
  isolations: 'both' | 'any'
  /** The state in which it is called. */
  prepare(daemon: TestDaemon, isolation: Isolation): Promise<void>
  /** May fail: the daemon is killed meanwhile. */
  act(daemon: TestDaemon, isolation: Isolation): Promise<unknown>
  /** After the restart: what must hold whether it was done or not. */
  verify?(daemon: TestDaemon): Promise<void>
}

const name = 'victim'
const body = (isolation: Isolation, more: object = {}, host: object = {}) => ({
  Image: testImage, Cmd: ['sh', '-c', 'trap "exit 0" TERM; while :; do sleep 0.1; done'],
  HostConfig: { Isolation: isolation, PortBindings: { '80/tcp': [{ HostPort: '' }] }, ...host }, ExposedPorts: { '80/tcp': {} }, ...more,
})
const create = (daemon: TestDaemon, isolation: Isolation, more: object = {}, host: object = {}) => must(daemon, 'POST', `/containers/create?name=${name}`, body(isolation, more, host))
const start = (daemon: TestDaemon) => must(daemon, 'POST', `/containers/${name}/start`)
const created = async (daemon: TestDaemon, isolation: Isolation) => void (await create(daemon, isolation))
const running = async (daemon: TestDaemon, isolation: Isolation) => {
  await create(daemon, isolation)
  await start(daemon)
}
const nothing = async () => {}
const names = async (daemon: TestDaemon) => (JSON.parse(await must(daemon, 'GET', '/containers/json?all=1')) as { Id: string; Names: string[] }[]).flatMap((row) => row.Names)

async function execTrue(daemon: TestDaemon): Promise<void> {
  const { Id } = JSON.parse(await must(daemon, 'POST', `/containers/${name}/exec`, { Cmd: ['sleep', '0.05'], AttachStdout: true })) as { Id: string }
  await must(daemon, 'POST', `/exec/${Id}/start`, { Detach: true })
}

/** What verbs need from outside: the archive that `docker load` gets, and an image of a registry. */
export interface Sources {
  archive: string
  remote: string
}

/** The verbs, in an order in which cheap ones come often. */
export function verbs({ archive, remote }: Sources): Verb[] {
  return [
    { name: 'create', isolations: 'both', prepare: nothing, act: create },
    { name: 'start', isolations: 'both', prepare: created, act: start },
    { name: 'run', isolations: 'both', prepare: nothing, act: running },
    { name: 'stop', isolations: 'both', prepare: running, act: (daemon) => must(daemon, 'POST', `/containers/${name}/stop?t=1`) },
    { name: 'kill', isolations: 'both', prepare: running, act: (daemon) => must(daemon, 'POST', `/containers/${name}/kill`) },
    { name: 'rm -f', isolations: 'both', prepare: running, act: (daemon) => must(daemon, 'DELETE', `/containers/${name}?force=1`) },
    { name: 'rm', isolations: 'both', prepare: created, act: (daemon) => must(daemon, 'DELETE', `/containers/${name}`) },
    { name: 'restart', isolations: 'both', prepare: running, act: (daemon) => must(daemon, 'POST', `/containers/${name}/restart?t=1`) },
    { name: 'pause', isolations: 'both', prepare: running, act: (daemon) => must(daemon, 'POST', `/containers/${name}/pause`) },
    { name: 'exec', isolations: 'both', prepare: running, act: execTrue },
    {
      name: 'run --rm', isolations: 'both', prepare: nothing,
      act: async (daemon, isolation) => {
        await create(daemon, isolation, { Cmd: ['true'] }, { AutoRemove: true })
        await start(daemon)
        await must(daemon, 'POST', `/containers/${name}/wait?condition=removed`, undefined, [404])
      },
    },
    {
      name: 'rename', isolations: 'any', prepare: created, act: (daemon) => must(daemon, 'POST', `/containers/${name}/rename?name=${name}-2`),
      verify: async (daemon) => {
        const found = (await names(daemon)).filter((one) => one.startsWith(`/${name}`))
        if (found.length !== 1) throw new Error(`after rename the names are ${JSON.stringify(found)}`)
      },
    },
    { name: 'update', isolations: 'both', prepare: running, act: (daemon) => must(daemon, 'POST', `/containers/${name}/update`, { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 3 } }) },
    {
      name: 'load', isolations: 'any', prepare: nothing, act: (daemon) => daemon.ok('load', '-q', '-i', archive),
    },
    {
      name: 'pull', isolations: 'any', prepare: nothing, act: (daemon) => daemon.ok('pull', '-q', remote),
      // What was fetched so far is kept for the next pull, on purpose: it goes on, and then nothing of that is left.
      verify: async (daemon) => {
        await daemon.ok('pull', '-q', remote)
        await must(daemon, 'DELETE', `/images/${remote}`)
      },
    },
    { name: 'tag', isolations: 'any', prepare: nothing, act: (daemon) => must(daemon, 'POST', `/images/${testImage}/tag?repo=${name}&tag=1`) },
    { name: 'rmi', isolations: 'any', prepare: async (daemon) => void (await daemon.ok('load', '-q', '-i', archive)), act: (daemon) => must(daemon, 'DELETE', '/images/chaos/other:1') },
    { name: 'commit', isolations: 'any', prepare: created, act: (daemon) => must(daemon, 'POST', `/commit?container=${name}&repo=${name}&tag=1`) },
    { name: 'volume create', isolations: 'any', prepare: nothing, act: (daemon) => must(daemon, 'POST', '/volumes/create', { Name: name }) },
    { name: 'volume rm', isolations: 'any', prepare: async (daemon) => void (await must(daemon, 'POST', '/volumes/create', { Name: name })), act: (daemon) => must(daemon, 'DELETE', `/volumes/${name}`) },
    {
      name: 'run with a volume', isolations: 'any', prepare: nothing,
      act: async (daemon) => {
        await create(daemon, 'process', {}, { Binds: [`${name}:/tmp`] })
        await start(daemon)
      },
    },
    { name: 'network create', isolations: 'any', prepare: nothing, act: (daemon) => must(daemon, 'POST', '/networks/create', { Name: name }) },
    { name: 'network rm', isolations: 'any', prepare: async (daemon) => void (await must(daemon, 'POST', '/networks/create', { Name: name })), act: (daemon) => must(daemon, 'DELETE', `/networks/${name}`) },
    {
      name: 'network connect', isolations: 'both',
      prepare: async (daemon, isolation) => {
        await must(daemon, 'POST', '/networks/create', { Name: name })
        await running(daemon, isolation)
      },
      act: (daemon) => must(daemon, 'POST', `/networks/${name}/connect`, { Container: name }),
    },
    {
      name: 'run on a network', isolations: 'both', prepare: async (daemon) => void (await must(daemon, 'POST', '/networks/create', { Name: name })),
      act: async (daemon, isolation) => {
        await create(daemon, isolation, {}, { NetworkMode: name })
        await start(daemon)
      },
    },
  ]
}

/** Takes away whatever a verb may have made: each deletion must work or find nothing. */
export async function clean(daemon: TestDaemon): Promise<void> {
  for (const one of [name, `${name}-2`]) await must(daemon, 'DELETE', `/containers/${one}?force=1&v=1`, undefined, [404])
  await must(daemon, 'DELETE', `/images/${name}:1`, undefined, [404])
  await must(daemon, 'DELETE', '/images/chaos/other:1', undefined, [404])
  await must(daemon, 'DELETE', `/volumes/${name}`, undefined, [404])
  const networks = JSON.parse(await must(daemon, 'GET', '/networks')) as { Name: string }[]
  for (const network of networks.filter((one) => one.Name === name)) await must(daemon, 'DELETE', `/networks/${network.Name}`)
}
