import { describe, expect, it } from 'vitest'
import { effectiveCapabilities } from '../../../src/oci/capabilities.js'
import { defaultSeccomp, parseSeccompProfile, seccompFor, type SeccompConfig } from '../../../src/oci/seccomp.js'
import { random } from './random.js'

const all = (1n << 41n) - 1n
const standard = effectiveCapabilities({ privileged: false, add: [], drop: [] }, all).capabilities

/** What the kernel would do, as libseccomp has it: the first rule that matches by its arguments, else the default. */
function decide(profile: SeccompConfig, name: string, ...args: bigint[]): string {
  const matching = profile.syscalls.filter((rule) => rule.names.includes(name)).filter((rule) =>
    (rule.args ?? []).every((condition) => {
      const value = BigInt.asUintN(64, args[condition.index] ?? 0n)
      if (condition.op === 'SCMP_CMP_EQ') return value === BigInt(condition.value)
      if (condition.op === 'SCMP_CMP_MASKED_EQ') return (value & BigInt(condition.value)) === BigInt(condition.valueTwo ?? 0)
      throw new Error(condition.op)
    }))
  const actions = new Set(matching.map((rule) => (rule.action === 'SCMP_ACT_ALLOW' ? 'allow' : `errno ${rule.errnoRet}`)))
  if (actions.size > 1) throw new Error(`${name}: contradictory rules ${[...actions].join()}`)
  return [...actions][0] ?? `errno ${profile.defaultErrnoRet}`
}

describe('the default profile', () => {
  const profile = defaultSeccomp(standard, 'x64')

  it('refuses every call that Docker’s documentation names as blocked', () => {
    // docs.docker.com/engine/security/seccomp, "Significant syscalls blocked by the default profile". In the table, but allowed by its profile:
    // clock_adjtime, clone (by flags), personality (by value), modify_ldt, process_vm_*, ptrace (Linux 4.8).
    for (const name of `acct add_key bpf clock_settime create_module delete_module finit_module get_kernel_syms get_mempolicy init_module ioperm iopl kcmp
      kexec_file_load kexec_load keyctl lookup_dcookie mbind mount move_pages nfsservctl open_by_handle_at perf_event_open pivot_root query_module quotactl reboot
      request_key set_mempolicy setns settimeofday stime swapon swapoff sysfs _sysctl umount umount2 unshare uselib userfaultfd ustat vm86 vm86old`.split(/\s+/)) {
      expect([name, decide(profile, name)]).toEqual([name, 'errno 1'])
    }
  })

  it('refuses more: io_uring, and the new mount calls', () => {
    for (const name of ['io_uring_setup', 'io_uring_enter', 'io_uring_register', 'fsopen', 'fsmount', 'open_tree', 'move_mount', 'mount_setattr', 'pidfd_getfd', 'process_madvise', 'fanotify_init', 'syslog', 'sethostname', 'vhangup']) {
      expect([name, decide(profile, name)]).toEqual([name, 'errno 1'])
    }
    expect(decide(profile, 'no_such_call')).toBe('errno 38')
    expect(decide(profile, 'socketcall', 1n)).toBe('errno 38')
  })

  it('makes everyday sockets only, whatever the upper half of the register holds', () => {
    const high = 1n << 40n
    for (const family of [1n, 2n, 10n, 16n, 17n]) expect(decide(profile, 'socket', family)).toBe('allow')
    for (const family of [38n, 40n, 21n, 30n, 0n, 15n, 44n]) {
      expect([family, decide(profile, 'socket', family)]).toEqual([family, 'errno 97'])
      expect([family, decide(profile, 'socket', high | family)]).toEqual([family, 'errno 97'])
    }
    for (let family = 0n; family < 64n; family++) if (decide(profile, 'socket', family) === 'allow') expect([1n, 2n, 10n, 16n, 17n]).toContain(family)
    expect(decide(profile, 'socket', 64n)).not.toBe('allow')
    expect(decide(profile, 'socketpair', 40n)).not.toBe('allow')
    const admin = defaultSeccomp([...standard, 'CAP_NET_ADMIN'], 'x64')
    expect(decide(admin, 'socket', 15n)).toBe('allow')
    expect(decide(admin, 'socket', 38n)).toBe('errno 97')
    expect(decide(admin, 'socket', 40n)).toBe('errno 97')
  })

  it('makes no namespaces without SYS_ADMIN', () => {
    expect(decide(profile, 'clone', 17n)).toBe('allow')
    for (const flag of [0x20000n, 0x2000000n, 0x4000000n, 0x8000000n, 0x10000000n, 0x20000000n, 0x40000000n]) {
      expect(decide(profile, 'clone', flag | 17n)).toBe('errno 1')
      expect(decide(profile, 'clone', (1n << 33n) | flag)).toBe('errno 1')
    }
    expect(decide(profile, 'clone3')).toBe('errno 38')
    const admin = defaultSeccomp([...standard, 'CAP_SYS_ADMIN'], 'x64')
    for (const name of ['clone', 'clone3', 'unshare', 'mount', 'bpf', 'setns']) expect(decide(admin, name, 0x10000000n)).toBe('allow')
    for (const name of ['keyctl', 'userfaultfd', 'io_uring_setup', 'kexec_load', 'pivot_root']) expect(decide(admin, name)).toBe('errno 1')
  })

  it.each([['CAP_SYS_CHROOT', 'chroot'], ['CAP_SYS_MODULE', 'init_module'], ['CAP_BPF', 'bpf'], ['CAP_PERFMON', 'perf_event_open'], ['CAP_SYS_TIME', 'settimeofday'], ['CAP_SYSLOG', 'syslog'], ['CAP_SYS_NICE', 'mbind'], ['CAP_DAC_READ_SEARCH', 'open_by_handle_at'], ['CAP_SYS_BOOT', 'reboot']])(
    'gives with %s the call %s, and with no other', (capability, name) => {
      expect(decide(defaultSeccomp([capability], 'x64'), name)).toBe('allow')
      expect(decide(defaultSeccomp(['CAP_CHOWN'], 'x64'), name)).toBe('errno 1')
    })

  it('keeps address randomization', () => {
    expect(decide(profile, 'personality', 0n)).toBe('allow')
    expect(decide(profile, 'personality', 0xffffffffn)).toBe('allow')
    expect(decide(profile, 'personality', 0x40000n)).not.toBe('allow')
  })

  it('is for 64-bit programs on x86, and for both on ARM', () => {
    expect(profile.architectures).toEqual(['SCMP_ARCH_X86_64'])
    expect(defaultSeccomp(standard, 'arm64').architectures).toEqual(['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'])
  })

  it('has no contradictory rules for any capability', () => {
    const names = new Set(defaultSeccomp(effectiveCapabilities({ privileged: true, add: [], drop: [] }, all).capabilities, 'x64').syscalls.flatMap((rule) => rule.names))
    for (const capability of [...effectiveCapabilities({ privileged: true, add: [], drop: [] }, all).capabilities]) {
      const one = defaultSeccomp([capability], 'x64')
      for (const name of names) decide(one, name, 0x40n)
    }
  })
})

describe('profiles in Docker’s format', () => {
  const host = { capabilities: ['CAP_SYS_ADMIN'], arch: 'x64', kernel: '6.1.0-56-amd64' }
  const parse = (profile: unknown) => parseSeccompProfile(JSON.stringify(profile), host)

  it('are taken over, with conditions resolved', () => {
    expect(parse({
      defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: 1,
      archMap: [{ architecture: 'SCMP_ARCH_AARCH64', subArchitectures: ['SCMP_ARCH_ARM'] }, { architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32'] }],
      syscalls: [
        { names: ['read', 'write'], action: 'SCMP_ACT_ALLOW' },
        { name: 'close', action: 'SCMP_ACT_ALLOW', includes: {}, excludes: {}, args: null, comment: 'x' },
        { names: ['mount'], action: 'SCMP_ACT_ALLOW', includes: { caps: ['CAP_SYS_ADMIN'] } },
        { names: ['umount'], action: 'SCMP_ACT_ALLOW', excludes: { caps: ['CAP_SYS_ADMIN'] } },
        { names: ['bpf'], action: 'SCMP_ACT_ALLOW', includes: { caps: ['CAP_SYS_ADMIN', 'CAP_BPF'] } },
        { names: ['ptrace'], action: 'SCMP_ACT_ALLOW', includes: { minKernel: '4.8' } },
        { names: ['newest'], action: 'SCMP_ACT_ALLOW', includes: { minKernel: '6.2' } },
        { names: ['arm_only'], action: 'SCMP_ACT_ALLOW', includes: { arches: ['arm', 'arm64'] } },
        { names: ['amd_only'], action: 'SCMP_ACT_ALLOW', includes: { arches: ['amd64'] } },
        { names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 2114060288, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }] },
        { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 },
      ],
    })).toEqual({
      defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: 1, architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
      syscalls: [
        ...[['read', 'write'], ['close'], ['mount'], ['ptrace'], ['amd_only']].map((names) => ({ names, action: 'SCMP_ACT_ALLOW' })),
        { names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 2114060288, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }] },
        { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 },
      ],
    })
  })

  it.each([
    ['not JSON', '{'], ['a list', '[]'], ['null', 'null'], ['no default', '{}'], ['an unknown action', '{"defaultAction":"SCMP_ACT_EVIL"}'],
    ['notify', '{"defaultAction":"SCMP_ACT_NOTIFY"}'], ['a listener', '{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}'],
    ['syscalls that are none', '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":{}}'], ['a rule that is none', '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[1]}'],
    ['a name that is none', '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["../x"],"action":"SCMP_ACT_ALLOW"}]}'],
    ['name and names', '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}'],
    ['an index', '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}'],
    ['a value that JSON rounds', '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":18446744073709551615,"op":"SCMP_CMP_EQ"}]}]}'],
    ['archMap and architectures', '{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}'],
    ['an unknown flag', '{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}'],
    ['too much', `{"defaultAction":"SCMP_ACT_ALLOW","x":"${'x'.repeat(1 << 20)}"}`],
  ])('are refused with 400: %s', (_what, text) => {
    expect(() => parseSeccompProfile(text, host)).toThrow(expect.objectContaining({ statusCode: 400, message: expect.stringMatching(/^Decoding seccomp profile failed: /) as string }) as Error)
  })

  it('survive anything', () => {
    const next = random(3)
    const pieces = ['null', '1', '-1', '1e999', '"x"', '[]', '{}', '"SCMP_ACT_ALLOW"', '{"names":["read"],"action":"SCMP_ACT_ALLOW"}', '[{}]', '[null]', 'true', '{"__proto__":{"caps":1}}', '{"caps":[1]}', '{"minKernel":"9999.9999"}', '[["a"]]']
    const fields = ['defaultAction', 'defaultErrnoRet', 'architectures', 'archMap', 'flags', 'syscalls', 'names', 'name', 'args', 'action', 'includes', 'excludes', '__proto__', 'constructor']
    const value = (depth: number): string => {
      if (depth === 0 || next(3) > 0) return pieces[next(pieces.length)]!
      return next(2) ? `[${Array.from({ length: next(4) }, () => value(depth - 1)).join()}]` : `{${Array.from({ length: next(5) }, () => `"${fields[next(fields.length)]}":${value(depth - 1)}`).join()}}`
    }
    for (let i = 0; i < 3000; i++) {
      const text = `{"defaultAction":"SCMP_ACT_ALLOW",${Array.from({ length: 1 + next(4) }, () => `"${fields[next(fields.length)]}":${value(4)}`).join()}}`
      try {
        for (const rule of parseSeccompProfile(text, host).syscalls) for (const name of rule.names) expect(name).toMatch(/^[a-z_][a-z0-9_]*$/)
      } catch (error) {
        expect(error).toMatchObject({ statusCode: 400 })
      }
    }
  })

  it('are chosen by name', () => {
    expect(seccompFor('unconfined', [])).toBeUndefined()
    expect(seccompFor('default', standard)).toBe(defaultSeccomp(standard))
    expect(seccompFor('{"defaultAction":"SCMP_ACT_LOG"}', [])).toEqual({ defaultAction: 'SCMP_ACT_LOG', syscalls: [] })
  })
})

describe('capabilities', () => {
  const names = (options: Partial<Parameters<typeof effectiveCapabilities>[0]>, available = all) => effectiveCapabilities({ privileged: false, add: [], drop: [], ...options }, available)

  it('follow Docker’s rules', () => {
    expect(names({}).capabilities).toHaveLength(14)
    expect(names({ add: ['net_admin', 'CAP_SYS_TIME'], drop: ['chown'] }).capabilities).toEqual(expect.arrayContaining(['CAP_NET_ADMIN', 'CAP_SYS_TIME']))
    expect(names({ drop: ['chown'] }).capabilities).not.toContain('CAP_CHOWN')
    expect(names({ drop: ['all'] }).capabilities).toEqual([])
    expect(names({ drop: ['ALL'], add: ['CHOWN'] }).capabilities).toEqual(['CAP_CHOWN'])
    expect(names({ add: ['ALL'], drop: ['sys_admin'] }).capabilities).toHaveLength(40)
    expect(names({ privileged: true, drop: ['sys_admin'] }).capabilities).toHaveLength(41)
    expect(() => names({ add: ['nonsense'] })).toThrow('invalid CapAdd: unknown capability: "CAP_NONSENSE"')
  })

  it('cannot be more than we have', () => {
    const less = all & ~(1n << 24n)
    expect(names({ privileged: true }, less).capabilities).not.toContain('CAP_SYS_RESOURCE')
    expect(names({ add: ['SYS_RESOURCE'] }, less)).toMatchObject({ missing: ['CAP_SYS_RESOURCE'] })
  })
})
