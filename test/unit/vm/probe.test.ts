import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { VmParts } from '../../../src/sandbox/vm/jailroot.js'
import { AcceleratorProbe } from '../../../src/sandbox/vm/probe.js'

// A KVM that hangs and one that refuses cannot be had here at will: a program in QEMU's place hangs, or refuses. That a guest really boots is tested with the real QEMU (doctor, vm suites, make test-kvm).
let directory = ''
let parts: VmParts
const boots = async () => (await readFile(join(directory, 'boots'), 'utf8')).trim().split('\n').length
const probe = (timeoutMs = 200) => new AcceleratorProbe(join(directory, 'accelerator.json'), '/dev/null', timeoutMs)

async function qemuThat(line: string): Promise<void> {
  await writeFile(parts.qemu, `#!/bin/sh\necho boot >> ${join(directory, 'boots')}\n${line}\n`)
  await chmod(parts.qemu, 0o755)
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hull-probe-'))
  parts = { qemu: join(directory, 'qemu'), kernel: join(directory, 'vmlinux'), initrd: join(directory, 'initrd') } as VmParts
  vi.useFakeTimers({ toFake: ['Date'] })
})
afterEach(async () => {
  vi.useRealTimers()
  await rm(directory, { recursive: true })
})

describe('the KVM probe', () => {
  it('asks a KVM that hung again after an hour, also after a restart of the daemon, and not before', async () => {
    await qemuThat('exec sleep 100')
    const first = probe()
    expect(await first.choose(parts)).toMatchObject({ accelerator: 'tcg', reason: expect.stringMatching(/does not boot a guest: no sign of life from the guest within 0.2 seconds/) as unknown })
    await first.choose(parts)
    await probe().choose(parts)
    expect(await boots()).toBe(1)
    vi.setSystemTime(Date.now() + 3_601_000)
    await Promise.all([first.choose(parts), first.choose(parts)])
    expect(await boots()).toBe(2)
    vi.setSystemTime(Date.now() + 3_601_000)
    await probe().choose(parts)
    expect(await boots()).toBe(3)
  })

  it('asks again when the clock was set back', async () => {
    await qemuThat('exec sleep 100')
    await probe().choose(parts)
    vi.setSystemTime(Date.now() - 86_400_000)
    await probe().choose(parts)
    expect(await boots()).toBe(2)
  })

  it('believes a KVM that refused until something changes', async () => {
    await qemuThat('echo "qemu: failed to set MSR 0x10a" >&2; exit 1')
    expect(await probe().choose(parts)).toMatchObject({ accelerator: 'tcg', reason: '/dev/null exists but does not boot a guest: qemu: failed to set MSR 0x10a' })
    vi.setSystemTime(Date.now() + 1e9)
    await probe().choose(parts)
    expect(await boots()).toBe(1)
    await writeFile(parts.kernel, 'another kernel')
    await probe().choose(parts)
    expect(await boots()).toBe(2)
  })

  it('takes a file that is not its own for none', async () => {
    await qemuThat('echo no >&2; exit 1')
    for (const text of ['', 'null', '{"key":1}', '{"key":"x","accelerator":"hax","reason":""}', '{"key":"x","accelerator":"kvm","reason":"","until":"soon"}']) {
      await writeFile(join(directory, 'accelerator.json'), text)
      expect((await probe().choose(parts)).accelerator).toBe('tcg')
    }
    expect(await boots()).toBe(5)
  })
})
