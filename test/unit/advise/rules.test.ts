import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { judge } from '../../../src/advise/judge.js'
import { needsOfContainer, noNeeds } from '../../../src/advise/needs.js'
import { kernelMeets, rules } from '../../../src/advise/rules.js'
import type { Facts, Needs } from '../../../src/advise/types.js'

const measured = (value: number) => ({ value, source: 'measured' })
const facts: Facts = {
  accelerator: 'kvm', kernel: '6.18.44-fc', guestKernel: '6.1.0-56-cloud-amd64', memory: 10e9, start: { process: measured(70), vm: measured(400) }, slope: { process: measured(1e6), vm: measured(100e6) },
  slower: { 'disk-random-read': measured(3), 'disk-write': measured(1.1), 'network-latency': measured(4), cpu: measured(8) }, hostSyscalls: { process: measured(310), vm: measured(60) },
  escapes: { process: measured(5), vm: measured(0) }, notes: [],
}
const asked = { trust: 'own' as const, kernel: '', modules: false, io: 'light' as const, startBudget: null, instances: 1 }
const needs = (change: Partial<Needs> = {}): Needs => ({ ...noNeeds('x', asked), ...change })

/** For each rule: needs (and facts) that make it speak, a part of what it says, and the nearest that must keep it silent. */
const cases: Record<string, { speaks: Partial<Needs>; facts?: Partial<Facts>; says: RegExp; silent: Partial<Needs>; silentFacts?: Partial<Facts> }> = {
  'no-vm': { speaks: {}, facts: { accelerator: '' }, says: /cannot run VMs/, silent: {} },
  'host-namespace': { speaks: { namespaces: ['--pid host'] }, says: /--pid host/, silent: {} },
  device: { speaks: { devices: ['--device /dev/dri'] }, says: /\/dev\/dri/, silent: {} },
  'process-only': { speaks: { processOnly: ['--runtime runsc'] }, says: /--runtime runsc/, silent: {} },
  'kernel-absent': { speaks: { kernel: '5.10' }, says: /no kernel 5\.10 either: it runs 6\.1\.0-56/, silent: { kernel: '6.1' } },
  modules: { speaks: { modules: true }, says: /modules/, silent: {} },
  kernel: { speaks: { kernel: '6.1' }, says: /wants kernel 6\.1; the host's is 6\.18\.44-fc.*6\.1\.0-56/, silent: { kernel: '6.18' } },
  tenant: { speaks: { trust: 'tenant' }, says: /310 system calls.*monitor 60 \(measured\)/, silent: { trust: 'team' } },
  privileged: { speaks: { privileged: true }, says: /5 reached the host from a container, 0 from a VM/, silent: {} },
  'start-budget': { speaks: { startBudget: 200 }, says: /400 ms.*budget is 200 ms/, silent: { startBudget: 500 } },
  density: { speaks: { instances: 100 }, says: /100 MB, so some 90 fit/, silent: { instances: 90 } },
  capability: { speaks: { capabilities: ['SYS_ADMIN', 'CHOWN'] }, says: /with SYS_ADMIN the workload/, silent: { capabilities: ['CHOWN'] } },
  disk: { speaks: { io: 'disk' }, says: /disk-random-read is 3\.0 times slower/, silent: { io: 'disk' }, silentFacts: { slower: { 'disk-write': measured(1.1) } } },
  network: { speaks: { io: 'network' }, says: /network-latency is 4\.0/, silent: { io: 'disk' } },
  cpu: { speaks: { io: 'cpu' }, says: /cpu is 8\.0/, silent: {} },
  trusted: { speaks: { trust: 'team' }, says: /your team's/, silent: { trust: 'unknown' } },
  emulation: { speaks: {}, facts: { accelerator: 'tcg' }, says: /TCG is no security boundary/, silent: {} },
  'unknown-code': { speaks: { trust: 'unknown' }, says: /nobody said/, silent: { trust: 'team' } },
  exposed: { speaks: { ports: 2, trust: 'team' }, says: /2 published ports/, silent: { ports: 2, trust: 'own' } },
  'engine-socket': { speaks: { engineSockets: ['/run/docker.sock'] }, says: /docker\.sock hands/, silent: {} },
  binds: { speaks: { binds: ['/a', '/b', '/c', '/d', '/e'] }, says: /\/a, \/b, \/c and 2 more.*virtiofs/, silent: {} },
  stateful: { speaks: { volumes: ['data'] }, says: /data\) is the same behind both/, silent: {} },
}

describe('rules', () => {
  it('has a case for each rule, in the order of the rules', () => {
    expect(Object.keys(cases)).toEqual(rules.map((rule) => rule.id))
  })
  for (const [id, one] of Object.entries(cases)) {
    it(`${id} speaks when it should, and only then`, () => {
      const rule = rules.find((candidate) => candidate.id === id)!
      expect(rule.when(needs(one.speaks), { ...facts, ...one.facts })).toMatch(one.says)
      expect(rule.when(needs(one.silent), { ...facts, ...one.silentFacts })).toBeNull()
    })
  }
  it('no weight stands for both walls, and they are listed heaviest first', () => {
    const free = rules.filter((rule) => rule.must !== true)
    expect(new Set(free.map((rule) => rule.weight)).size).toBe(free.length)
    expect(rules.map((rule) => rule.weight)).toEqual(rules.map((rule) => rule.weight).sort((a, b) => b - a))
  })
  it('budgets say nothing where nothing was measured', () => {
    const unknown = { ...facts, start: { process: null, vm: null }, slope: { process: null, vm: null }, slower: {} }
    expect(judge(needs({ startBudget: 1, instances: 1e6, io: 'disk' }), unknown).reasons.map((reason) => reason.rule)).toEqual(['trusted'])
  })
  it('6.1 is 6.1.0 and not 6.12', () => {
    expect(['6.1', '6.1.0-56', '6.1-rc1', '6.12', '5.6.1'].map((version) => kernelMeets(version, '6.1'))).toEqual([true, true, true, false, false])
  })
  it('docs/choosing.md has the table of these rules', () => {
    const rows = readFileSync('docs/choosing.md', 'utf8').split('\n').flatMap((line) => /^\| (must|\d+) \| (process|vm) \| (.*) \|$/.exec(line)?.slice(1) ?? []).join('\n')
    expect(rows).toBe(rules.flatMap((rule) => [rule.must ? 'must' : String(rule.weight), rule.for, rule.about]).join('\n'))
  })
})

describe('judge', () => {
  const advice = (change: Partial<Needs>, more: Partial<Facts> = {}) => judge(needs(change), { ...facts, ...more })
  it.each<[string, Partial<Needs>, Partial<Facts>, 'process' | 'vm' | null]>([
    ['own code is a container', {}, {}, 'process'],
    ['a tenant\'s is a VM', { trust: 'tenant' }, {}, 'vm'],
    ['whatever it would save', { trust: 'tenant', startBudget: 100, instances: 1000, io: 'disk', binds: ['/a'], volumes: ['b'] }, {}, 'vm'],
    ['and also where it is emulated', { trust: 'tenant' }, { accelerator: 'tcg' }, 'vm'],
    ['unknown code is a VM', { trust: 'unknown' }, {}, 'vm'],
    ['but not where a VM is slow and no boundary', { trust: 'unknown' }, { accelerator: 'tcg' }, 'process'],
    ['nor where it misses the budget', { trust: 'unknown', startBudget: 100 }, {}, 'process'],
    ['privileged is a VM, own or not', { privileged: true }, {}, 'vm'],
    ['a must is above every weight', { trust: 'tenant', privileged: true, devices: ['--device /dev/x'] }, {}, 'process'],
    ['for both', { modules: true, startBudget: 1, instances: 1000 }, {}, 'vm'],
    ['musts for both walls have no answer', { modules: true, namespaces: ['--pid host'] }, {}, null],
    ['nor has a kernel that nobody has', { kernel: '5.10' }, {}, null],
    ['own modules on a host without VMs', { modules: true }, { accelerator: '' }, null],
  ])('%s', (_name, change, more, expected) => {
    expect(advice(change, more).isolation).toBe(expected)
  })
  it('reasons come by weight', () => {
    expect(advice({ trust: 'tenant', binds: ['/a'], modules: true }, { accelerator: 'tcg' }).reasons.map((reason) => reason.rule)).toEqual(['modules', 'tenant', 'emulation', 'binds'])
  })
  it('never advises an emulated VM without saying that it is no boundary', () => {
    for (const change of [{ trust: 'tenant' }, { privileged: true }, { modules: true }, { capabilities: ['BPF'] }] as Partial<Needs>[]) {
      const { isolation, warnings } = advice(change, { accelerator: 'tcg' })
      expect(isolation).toBe('vm')
      expect(warnings.join()).toMatch(/TCG.*no security boundary/)
    }
  })
  it('says so when only a container can be had for code that wants a VM', () => {
    expect(advice({ trust: 'tenant', devices: ['--device /dev/x'] }).warnings.join()).toMatch(/a container is all that can be had here, but the code is somebody else's/)
    expect(advice({ trust: 'own', devices: ['--device /dev/x'] }).warnings).toEqual([])
  })
})

describe('needs of a container', () => {
  it('reads what a VM refuses and what the rules weigh', () => {
    const found = needsOfContainer('c', { HostConfig: {
      Privileged: true, CapAdd: ['cap_sys_admin'], PidMode: 'host', IpcMode: 'private', NetworkMode: 'container:abc', Runtime: 'crun', SecurityOpt: ['seccomp={}', 'no-new-privileges'],
      Devices: [{ PathOnHost: '/dev/fuse' }], Binds: ['/var/run/docker.sock:/s', 'data:/d', '/m:/m:rshared'], PortBindings: { '80/tcp': [] },
      Mounts: [{ Type: 'bind', Source: '/n', Target: '/n' }, { Type: 'tmpfs', Target: '/t' }],
    } }, asked, 'crun')
    expect(found).toMatchObject({
      privileged: true, capabilities: ['SYS_ADMIN'], namespaces: ['--pid host', '--network container:abc'], devices: ['--device /dev/fuse'],
      processOnly: ['a seccomp profile of its own', 'the mount /m:/m:rshared'], binds: ['/var/run/docker.sock', '/m', '/n'], engineSockets: ['/var/run/docker.sock'], volumes: ['data'], ports: 1,
    })
    expect(needsOfContainer('c', { HostConfig: { Runtime: 'runsc' } }, asked, 'crun').processOnly).toEqual(['--runtime runsc'])
  })
})
