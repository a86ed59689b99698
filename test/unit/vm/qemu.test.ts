import { describe, expect, it } from 'vitest'
import { guestDevices, IMAGE_SLOTS, imageSlotOf, kernelCommandLine, PLACEHOLDER, qemuArguments, type Machine } from '../../../src/sandbox/vm/qemu.js'
import { countCpus, DEFAULT_RAM, RAM_FLOOR, sizeVm, VMM_OVERHEAD } from '../../../src/sandbox/vm/resources.js'
import type { Resources } from '../../../src/sandbox/types.js'

const machine: Machine = {
  accelerator: 'tcg', vcpus: 2, ram: 512 << 20, kernel: '/k', initrd: '/i', agentFd: 20, image: '/a,b.erofs', disk: '/d',
  network: { fd: 3, mac: '02:42:ac:11:00:02' },
}
const value = (args: string[], name: string) => args[args.indexOf(name) + 1]!

describe('the command line', () => {
  it('never runs without QEMU\'s own filter, and asks for nothing from its configuration', () => {
    const args = qemuArguments(machine)
    expect(value(args, '-sandbox')).toBe('on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny')
    for (const flag of ['-nodefaults', '-no-user-config', '-no-reboot']) expect(args).toContain(flag)
    expect(value(args, '-m')).toBe('512M')
    expect(value(args, '-smp')).toBe('2')
  })

  it('opens the image read-only on the host\'s side, and the disk alone for writing', () => {
    const args = qemuArguments(machine)
    const nodes = args.flatMap((arg, index) => (args[index - 1] === '-blockdev' ? [JSON.parse(arg) as Record<string, unknown>] : []))
    expect(nodes.map((node) => [node['node-name'], node['read-only'], node['auto-read-only']])).toEqual([['root', true, false], ['disk', false, false]])
    expect(nodes[0]!.file).toMatchObject({ filename: '/a,b.erofs', 'read-only': true, 'auto-read-only': false })
  })

  it('maps an image that fills a slot read-only as persistent memory; the disk takes its place among the block devices', () => {
    const args = qemuArguments({ ...machine, imageSlot: 128 << 20 })
    expect(value(args, '-m')).toBe('512M,slots=1,maxmem=640M')
    expect(args).toContain('memory-backend-file,id=root,size=128M,mem-path=/a,,b.erofs,share=on,readonly=on')
    expect(args).toContain('virtio-pmem-pci,memdev=root')
    expect(args.filter((arg) => arg.startsWith('virtio-blk-pci'))).toHaveLength(1)
    expect(guestDevices(128 << 20)).toEqual({ root: '/dev/pmem0', disk: '/dev/vda' })
    expect(guestDevices(0)).toEqual({ root: '/dev/vda', disk: '/dev/vdb' })
    expect([0, 1, (128 << 20) - 4096, 128 << 20, (128 << 20) + 4096, 512 << 20, 2 ** 30].map(imageSlotOf)).toEqual([0, 0, 0, 128 << 20, 0, 512 << 20, 0])
  })

  it('a template mounts the disk that its clones get, and a machine that boots does not', () => {
    const memory = { use: 'template', path: 'memory', qmpFd: 4 } as const
    const line = (more: Partial<Machine>) => kernelCommandLine({ ...machine, image: PLACEHOLDER, ...more })
    expect(line({ memory })).toMatch(/ hull_disk=\/dev\/vdb$/)
    expect(line({ memory, imageSlot: IMAGE_SLOTS[0] })).toMatch(/ hull_disk=\/dev\/vda$/)
    for (const none of [{}, { memory, disk: PLACEHOLDER }] as const) expect(line(none)).not.toContain('hull_disk')
  })

  it('a template of one image mounts that, too', () => {
    const memory = { use: 'template', path: 'memory', qmpFd: 4 } as const
    const line = (more: Partial<Machine>) => kernelCommandLine({ ...machine, memory, ...more })
    expect(line({ image: '/i', imageSlot: IMAGE_SLOTS[0] })).toMatch(/ hull_disk=\/dev\/vda hull_root=\/dev\/pmem0 hull_masked=\/proc\/asound,[^ ]+,\/sys\/devices\/virtual\/powercap hull_ropaths=\/proc\/bus,[^ ]+$/)
    expect(line({ image: '/i' })).toMatch(/ hull_disk=\/dev\/vdb hull_root=\/dev\/vda hull_masked=/)
    expect(line({ image: '/i', accelerator: 'tcg', tscKhz: 9_999_999, console: '/c' }).length).toBeLessThan(2048 - 100) // COMMAND_LINE_SIZE of x86, with room for what QEMU adds
    for (const none of [{ image: PLACEHOLDER }, { image: '/i', disk: PLACEHOLDER }, { image: '/i', memory: { ...memory, use: 'clone' } }] as const) expect(line(none)).not.toContain('hull_root')
  })

  it('reports the host\'s errors to the guest, in a template as in its clones', () => {
    for (const disk of ['/d', PLACEHOLDER] as const) {
      expect(qemuArguments({ ...machine, disk }).find((arg) => arg.startsWith('virtio-blk-pci,drive=disk'))).toBe('virtio-blk-pci,drive=disk,disable-legacy=on,werror=report,rerror=report')
    }
  })

  it('puts the agent\'s port before every other device', () => {
    const args = qemuArguments(machine)
    expect(args.filter((_, index) => args[index - 1] === '-device')[0]).toMatch(/^virtio-serial-pci/)
    expect(value(args, '-chardev')).toBe('socket,id=agent,fd=20')
  })

  it('has no network device without a network, and takes no crafted address', () => {
    const { network: _, ...without } = machine
    expect(qemuArguments(without).join(' ')).not.toContain('net')
    expect(() => qemuArguments({ ...machine, network: { fd: 3, mac: '02:42:ac:11:00:02,romfile=/x' } })).toThrow(/MAC/)
  })

  it('keeps the mitigations under KVM, where code really speculates', () => {
    expect(kernelCommandLine({ accelerator: 'kvm' })).not.toMatch(/mitigations=off|nokaslr/)
    expect(kernelCommandLine({ accelerator: 'tcg' })).toMatch(/mitigations=off/)
    expect(kernelCommandLine({ accelerator: 'tcg', tscKhz: 2596096 })).toMatch(/ tsc_early_khz=2596096$/)
    expect(kernelCommandLine({ accelerator: 'kvm', tscKhz: 2596096 })).not.toMatch(/tsc_early_khz/)
    const kvm = qemuArguments({ ...machine, accelerator: 'kvm' })
    expect([value(kvm, '-accel'), value(kvm, '-cpu')]).toEqual(['kvm', 'host'])
    expect(value(qemuArguments(machine), '-accel')).toBe('tcg,tb-size=64')
  })

  it('refuses sizes that QEMU would round or misread', () => {
    for (const bad of [{ ram: 100 }, { ram: 0 }, { vcpus: 0 }, { vcpus: 1.5 }]) expect(() => qemuArguments({ ...machine, ...bad })).toThrow()
  })
})

const none: Resources = {
  memory: 0, memorySwap: 0, memoryReservation: 0, nanoCpus: 0, cpuShares: 0, cpuPeriod: 0, cpuQuota: 0, cpusetCpus: '', cpusetMems: '', pidsLimit: 0,
  ulimits: [], oomKillDisable: false, oomScoreAdj: 0, blkioWeight: 0,
}
const MiB = 1 << 20

describe('the size of a VM', () => {
  it('is 1 vCPU and 256 MiB without limits', () => {
    const size = sizeVm(none, 'tcg', 8)
    expect(size).toMatchObject({ vcpus: 1, ram: DEFAULT_RAM, guestMemory: 172 * MiB, jail: { memory: DEFAULT_RAM + VMM_OVERHEAD.tcg, cpu: {} } })
    expect(DEFAULT_RAM).toBe(256 * MiB)
  })

  it.each([
    [{ nanoCpus: 1.5e9 }, 2, { quota: 150_000, period: 100_000 }],
    [{ nanoCpus: 1e7 }, 1, { quota: 1000, period: 100_000 }],
    [{ nanoCpus: 64e9 }, 8, { quota: 6_400_000, period: 100_000 }],
    [{ cpuQuota: 250_000 }, 3, { quota: 250_000, period: 100_000 }],
    [{ cpuQuota: 50_000, cpuPeriod: 20_000 }, 3, { quota: 50_000, period: 20_000 }],
    [{ nanoCpus: 4e9, cpusetCpus: '0-1,5' }, 3, { quota: 400_000, period: 100_000, cpus: '0-1,5' }],
    [{ cpuShares: 512, cpusetMems: '0' }, 1, { shares: 512, mems: '0' }],
  ])('%j: %i vCPUs', (limits, vcpus, cpu) => {
    const size = sizeVm({ ...none, ...limits }, 'kvm', 8)
    expect(size.vcpus).toBe(vcpus)
    expect(size.jail.cpu).toEqual(cpu)
  })

  it('is --memory in whole MiB, and under the floor a limit inside the guest', () => {
    expect(sizeVm({ ...none, memory: 512 * MiB + 1 }, 'kvm', 8)).toMatchObject({ ram: 601 * MiB, guestMemory: 512 * MiB + 1 })
    expect(sizeVm({ ...none, memory: 6 * MiB }, 'kvm', 8)).toMatchObject({ ram: RAM_FLOOR, guestMemory: 6 * MiB, jail: { memory: RAM_FLOOR + VMM_OVERHEAD.kvm } })
    expect(sizeVm({ ...none, memory: 5 * 1024 * MiB }, 'kvm', 8).ram).toBe((5 * 1024 + 80 + 80) * MiB)
    // Page structures of persistent memory come on top: nothing of it is the workload's.
    const [without, slot] = [sizeVm(none, 'tcg', 8), sizeVm(none, 'tcg', 8, 512 * MiB)]
    expect([slot.ram - without.ram, slot.guestMemory - without.guestMemory, slot.jail.memory - without.jail.memory]).toEqual([8 * MiB, 0, 8 * MiB])
  })

  it('reads cpusets as cpuset(7) writes them', () => {
    expect([countCpus('0'), countCpus('0-3'), countCpus('0-1,1-2,7')]).toEqual([1, 4, 4])
    for (const bad of ['x', '3-1', '', '0,', '-1']) expect(() => countCpus(bad)).toThrow(expect.objectContaining({ statusCode: 400 }))
  })
})
