import { badRequest } from '../base/errors.js'
import type { NetworkFilter } from '../engine/api-types.js'
import type { Exchange } from './exchange.js'
import { parseFilters } from './filters.js'
import { networkJson, volumeJson } from './mapping-system.js'
import type { Router } from './router.js'
import { endpoint, endpointOf } from './schema-container.js'
import { fields, fieldsOrZero, flag, flagOrNull, labels, list, text } from './schema.js'

const networkFilters: readonly NetworkFilter[] = ['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type']

const createNetworkBody = fields({
  Name: text, Driver: text, Internal: flag, Attachable: flag, Ingress: flag, EnableIPv4: flagOrNull, EnableIPv6: flag, ConfigOnly: flag, Scope: text, Options: labels, Labels: labels,
  IPAM: fieldsOrZero({ Driver: text, Options: labels, Config: list(fields({ Subnet: text, Gateway: text, IPRange: text, AuxiliaryAddresses: labels, AuxAddress: labels })) }),
})
const connectBody = fields({ Container: text, EndpointConfig: endpoint })
const disconnectBody = fields({ Container: text, Force: flag })
const createVolumeBody = fields({ Name: text, Driver: text, DriverOpts: labels, Labels: labels })

/** Networks' and volumes' endpoints. */
export function networkRoutes(router: Router): void {
  const listNetworks = async (x: Exchange) => x.send(200, (await x.engine.networks.list(parseFilters(x.query.text('filters'), networkFilters))).map(networkJson))
  router.on('GET', '/networks', listNetworks)
  router.on('GET', '/networks/', listNetworks)
  router.on('GET', '/networks/:id', async (x) => x.send(200, networkJson(await x.engine.networks.inspect(x.param('id')))))
  router.on('POST', '/networks/create', createNetwork)
  router.on('DELETE', '/networks/:id', async (x) => {
    await x.engine.networks.remove(x.param('id'))
    x.empty()
  })
  router.on('POST', '/networks/:id/connect', async (x) => {
    const body = await x.json(connectBody)
    await x.engine.networks.connect(x.param('id'), body.Container, endpointOf(body.EndpointConfig))
    x.empty(200)
  })
  router.on('POST', '/networks/:id/disconnect', async (x) => {
    const body = await x.json(disconnectBody)
    await x.engine.networks.disconnect(x.param('id'), body.Container, body.Force)
    x.empty(200)
  })
  router.on('POST', '/networks/prune', async (x) => {
    const { deleted } = await x.engine.networks.prune(parseFilters(x.query.text('filters'), ['until', 'label', 'label!']))
    x.send(200, { NetworksDeleted: deleted.length > 0 ? deleted : null })
  })

  router.on('GET', '/volumes', async (x) => {
    const { volumes, warnings } = await x.engine.volumes.list(parseFilters(x.query.text('filters'), ['dangling', 'driver', 'label', 'name']))
    x.send(200, { Volumes: volumes.map(volumeJson), Warnings: warnings.length > 0 ? warnings : null })
  })
  router.on('POST', '/volumes/create', async (x) => {
    const body = await x.json(createVolumeBody)
    x.send(201, volumeJson(await x.engine.volumes.create({ name: body.Name, driver: body.Driver, options: body.DriverOpts, labels: body.Labels })))
  })
  router.on('GET', '/volumes/:name', async (x) => x.send(200, volumeJson(await x.engine.volumes.inspect(x.param('name')))))
  router.on('DELETE', '/volumes/:name', async (x) => {
    await x.engine.volumes.remove(x.param('name'), x.query.bool('force'))
    x.empty()
  })
  router.on('POST', '/volumes/prune', async (x) => {
    const filters = parseFilters(x.query.text('filters'), ['all', 'label', 'label!'])
    // Before API 1.42 a prune took named volumes too.
    const { deleted, spaceReclaimed } = await x.engine.volumes.prune(x.minor < 42 ? { ...filters, all: ['true'] } : filters)
    x.send(200, { VolumesDeleted: deleted.length > 0 ? deleted : null, SpaceReclaimed: spaceReclaimed })
  })
}

async function createNetwork(x: Exchange): Promise<void> {
  const body = await x.json(createNetworkBody)
  if (body.Name.trim() === '') throw badRequest('invalid network name: name is empty')
  if (body.EnableIPv4 === false) throw badRequest('IPv4 cannot be disabled on a network in Hull')
  if (body.ConfigOnly) throw badRequest('configuration-only networks are not supported by Hull')
  if (body.Scope !== '' && body.Scope !== 'local') throw badRequest(`unsupported network scope: ${body.Scope}`)
  const { id, warning } = await x.engine.networks.create({
    name: body.Name, driver: body.Driver, internal: body.Internal, attachable: body.Attachable, ingress: body.Ingress, enableIPv6: body.EnableIPv6,
    ipam: {
      driver: body.IPAM.Driver, options: body.IPAM.Options,
      configs: body.IPAM.Config.map((config) => ({
        subnet: config.Subnet, gateway: config.Gateway, ipRange: config.IPRange, auxiliary: { ...config.AuxAddress, ...config.AuxiliaryAddresses },
      })),
    },
    options: body.Options, labels: body.Labels,
  })
  x.send(201, { Id: id, Warning: warning })
}
