import { z } from 'zod'
import { badRequest, messageOf, notImplemented } from '../base/errors.js'
import { StepError, type BuildRequest } from '../engine/build-types.js'
import type { CreateContainerRequest, RegistryAuth } from '../engine/api-types.js'
import type { Exchange } from './exchange.js'
import { ProgressStream } from './progress.js'
import { registryAuth } from './registry-auth.js'
import type { Router } from './router.js'
import { platformOf } from './routes-containers.js'
import { createBody, createRequest } from './schema-container.js'

/** Build's endpoints: the classic builder's. BuildKit's are told apart by name, so that a client knows what to do. */
export function buildRoutes(router: Router): void {
  router.on('POST', '/build', build)
  for (const path of ['/session', '/grpc']) {
    router.on('POST', path, () => {
      throw notImplemented('BuildKit is not supported by Hull: set DOCKER_BUILDKIT=0 to use the classic builder')
    })
  }
  router.on('POST', '/build/cancel', () => {
    throw notImplemented('BuildKit is not supported by Hull: a build of the classic builder ends with its connection')
  })
  // The classic builder's cache is its images: `docker image prune` takes what nobody needs.
  router.on('POST', '/build/prune', (x) => x.send(200, { CachesDeleted: null, SpaceReclaimed: 0 }))
}

function jsonParameter<T>(x: Exchange, name: string, schema: z.ZodType<T>, absent: T): T {
  const text = x.query.text(name)
  if (text === '') return absent
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw badRequest(`error reading ${name}: ${messageOf(error)}`, error)
  }
  if (value === null) return absent
  const parsed = schema.safeParse(value)
  if (!parsed.success) throw badRequest(`error reading ${name}: ${parsed.error.issues[0]?.message ?? 'invalid'}`)
  return parsed.data
}

const texts = z.record(z.string(), z.string())
const list = z.array(z.string())
const ulimits = z.array(z.object({ Name: z.string(), Soft: z.number().int(), Hard: z.number().int() }))

/** What the containers of RUN steps have in common, checked as any container's. */
function stepContainer(x: Exchange): CreateContainerRequest {
  const { query } = x
  const memory = query.integer('memory') ?? 0
  const body = createBody.parse({
    HostConfig: {
      Memory: memory, MemorySwap: query.integer('memswap') ?? 0, CpuShares: query.integer('cpushares') ?? 0, CpuPeriod: query.integer('cpuperiod') ?? 0, CpuQuota: query.integer('cpuquota') ?? 0,
      CpusetCpus: query.text('cpusetcpus'), CpusetMems: query.text('cpusetmems'), CgroupParent: query.text('cgroupparent'), ShmSize: query.integer('shmsize') ?? 0,
      NetworkMode: query.text('networkmode'), Isolation: query.text('isolation'), ExtraHosts: query.all('extrahosts').flatMap((host) => (host.startsWith('[') ? jsonParameter(x, 'extrahosts', list, []) : [host])),
      Ulimits: jsonParameter(x, 'ulimits', ulimits, []), SecurityOpt: jsonParameter(x, 'securityopt', list, []), LogConfig: { Type: 'none', Config: {} },
    },
    NetworkingConfig: {},
  })
  return createRequest(body, '', '', x.minor)
}

/** X-Registry-Config: base64url of JSON, credentials by registry. One that cannot be read is as none. */
function registryConfig(header: string | string[] | undefined): (domain: string) => RegistryAuth | undefined {
  let known: Record<string, unknown> = {}
  try {
    if (typeof header === 'string' && header.length <= 1 << 20) known = z.record(z.string(), z.unknown()).parse(JSON.parse(Buffer.from(header, 'base64url').toString('utf8')))
  } catch {
    known = {}
  }
  return (domain) => {
    const entry = (domain === 'docker.io' ? ['https://index.docker.io/v1/', 'index.docker.io', domain] : [domain, `https://${domain}`, `http://${domain}`]).find((key) => Object.hasOwn(known, key))
    return entry === undefined ? undefined : registryAuth(Buffer.from(JSON.stringify(known[entry])).toString('base64url'))
  }
}

async function build(x: Exchange): Promise<void> {
  const { query } = x
  if (query.text('version') === '2') throw notImplemented('BuildKit is not supported by Hull: set DOCKER_BUILDKIT=0 to use the classic builder')
  if (query.text('remote') !== '') throw notImplemented('building from a URL is not supported by Hull: send the context')
  if (query.bool('squash')) throw badRequest('squash is only supported with experimental mode')
  if (query.text('outputs') !== '' && query.text('outputs') !== 'null' && query.text('outputs') !== '[]') throw badRequest('the --output option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled')
  const warnings = jsonParameter(x, 'cachefrom', list, []).length > 0 ? ['--cache-from is not used: the cache is what was built here'] : []
  const progress = new ProgressStream(x)
  const request: BuildRequest = {
    dockerfile: query.text('dockerfile') || 'Dockerfile', tags: query.all('t').filter((tag) => tag !== ''), buildArgs: jsonParameter(x, 'buildargs', z.record(z.string(), z.string().nullable()), {}),
    labels: jsonParameter(x, 'labels', texts, {}), target: query.text('target'), platform: x.minor >= 32 ? platformOf(x) : '', noCache: query.bool('nocache'), pull: query.bool('pull'),
    keep: !query.bool('rm', true) && !query.bool('forcerm'), quiet: query.bool('q'), container: stepContainer(x), auth: registryConfig(x.request.headers['x-registry-config']),
    warnings, onProgress: progress.send, signal: x.signal,
  }
  await progress.run(async () => {
    try {
      await x.engine.builds.build(x.upload(), request)
    } catch (error) {
      // The client makes the exit code its own. A step has been announced by then, except in a quiet build.
      if (!(error instanceof StepError)) throw error
      progress.send({ errorDetail: { code: error.code, message: error.message }, error: error.message })
    }
  })
}

