import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { formatIPv4, formatSubnet, parseGateway } from '../../../src/network/address.js'
import { candidates, chooseSubnet, firstWithoutCollision, parseRoutes, saveSubnet, usedBlocks } from '../../../src/network/subnet.js'

const routes = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
eth0\t010200C0\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
hull0\t00001DAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
`

test('routes of the kernel, without defaults and our own', () => {
  expect(parseRoutes(routes, 'hull0').map((block) => [block.what, formatIPv4(block.first), formatIPv4(block.last)])).toEqual([
    ['route 172.17.0.0/16 on docker0', '172.17.0.0', '172.17.255.255'],
    ['route 10.0.0.0/8 on tun0', '10.0.0.0', '10.255.255.255'],
    ['route 192.0.2.1/32 on eth0', '192.0.2.1', '192.0.2.1'],
  ])
})

test('all candidates are good gateways, and the first without a collision is chosen', () => {
  candidates.forEach((text) => parseGateway(text))
  const used = parseRoutes(routes, '')
  expect(firstWithoutCollision(candidates, used)).toBe('172.30.0.1/16')
  expect(firstWithoutCollision(['10.5.0.1/16'], used)).toBeUndefined()
})

describe('chooseSubnet on this host', () => {
  let stateDir = ''
  beforeEach(async () => {
    stateDir = await mkdtemp(join(tmpdir(), 'hull-subnet-'))
  })
  afterEach(() => rm(stateDir, { recursive: true }))
  const choose = (bip: string, inUse = false) => chooseSubnet({ stateDir, bridge: 'hullnone', bip, inUse })

  test('a default is chosen once and remembered with the last address', async () => {
    const first = await choose('')
    expect(candidates).toContain(`${formatIPv4(first.cidr.address)}/${first.cidr.prefixLength}`)
    const bip = `${formatIPv4(first.cidr.address)}/${first.cidr.prefixLength}`
    await saveSubnet(stateDir, { bip, last: formatIPv4(first.cidr.first + 9) })
    expect(await choose('')).toEqual({ cidr: first.cidr, last: formatIPv4(first.cidr.first + 9) })
  })

  test('the loopback block collides: clear error for a bip, another choice for a remembered default, a warning when it is in use', async () => {
    const lo = (await usedBlocks('hullnone')).find((block) => block.what.includes('of lo') || block.what.includes('on lo'))
    expect(lo).toBeDefined()
    const other = (await usedBlocks('hullnone')).find((block) => formatIPv4(block.first) !== '127.0.0.0' && block.last - block.first >= 3)
    if (!other) return // a host without any network
    const bip = `${formatIPv4(other.first + 1)}/30`
    await expect(choose(bip)).rejects.toMatchObject({ statusCode: 500, message: expect.stringMatching(/^bip .* overlaps with (route|address) .*--bip/) })
    await saveSubnet(stateDir, { bip, last: '' })
    expect((await choose('', true)).warning).toContain('overlaps')
    const chosen = await choose('')
    expect(formatSubnet(chosen.cidr)).not.toBe(formatSubnet(parseGateway(bip)))
    expect(JSON.parse(await readFile(join(stateDir, 'subnet.json'), 'utf8'))).toMatchObject({ bip: `${formatIPv4(chosen.cidr.address)}/${chosen.cidr.prefixLength}` })
  })

  test.each(['', '{', '{"bip":"x"}', '{"bip":7}', '[]'])('a broken state file %j is replaced', async (text) => {
    await writeFile(join(stateDir, 'subnet.json'), text)
    const { cidr } = await choose('')
    expect(JSON.parse(await readFile(join(stateDir, 'subnet.json'), 'utf8')).bip).toBe(`${formatIPv4(cidr.address)}/${cidr.prefixLength}`)
  })
})
