import { HullError, notFound, notImplemented } from '../base/errors.js'
import type { Method, Router } from './router.js'

const noSwarm = () => {
  throw new HullError(503, 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.')
}

/** Parts of Docker's API that Hull does not have: each says so in the way in which clients understand it. */
export function absentRoutes(router: Router): void {
  for (const collection of ['nodes', 'services', 'tasks', 'secrets', 'configs']) {
    router.on('GET', `/${collection}`, noSwarm)
    router.on('GET', `/${collection}/:id`, noSwarm)
    router.on('GET', `/${collection}/:id/logs`, noSwarm)
    router.on('POST', `/${collection}/create`, noSwarm)
    router.on('POST', `/${collection}/:id/update`, noSwarm)
    router.on('DELETE', `/${collection}/:id`, noSwarm)
  }
  router.on('GET', '/swarm', noSwarm)
  router.on('GET', '/swarm/unlockkey', noSwarm)
  router.on('POST', '/swarm/update', noSwarm)
  router.on('POST', '/swarm/leave', () => {
    throw new HullError(503, 'This node is not part of a swarm')
  })
  const missing = (what: string) => () => {
    throw notImplemented(`${what} is not supported by Hull`)
  }
  const absent: [Method, string, string][] = [
    ['POST', '/swarm/init', 'swarm mode'],
    ['POST', '/swarm/join', 'swarm mode'],
    ['POST', '/swarm/unlock', 'swarm mode'],
    ['GET', '/containers/:id/attach/ws', 'attach over a websocket'],
    ['GET', '/containers/:id/checkpoints', 'checkpoint'],
    ['POST', '/containers/:id/checkpoints', 'checkpoint'],
    ['DELETE', '/containers/:id/checkpoints/:name', 'checkpoint'],
    ['POST', '/plugins/pull', 'the plugin API'],
    ['POST', '/plugins/create', 'the plugin API'],
    ['GET', '/plugins/privileges', 'the plugin API'],
    ['PUT', '/volumes/:name', 'cluster volumes'],
  ]
  for (const [method, path, what] of absent) router.on(method, path, missing(what))
  router.on('GET', '/plugins', (x) => x.send(200, []))
  router.named('GET', '/plugins/', '/json', (x) => {
    throw notFound(`plugin "${x.param('name')}" not found`)
  })
}
