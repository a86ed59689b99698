import { accessSync, constants, existsSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { messageOf } from '../../base/errors.js'
import { run } from '../../base/run.js'
import { engine } from './parts.js'
import type { Finding, Verdict } from './report.js'

const setup = 'run `make setup` in Hull\'s source tree'
const built = (name: string) => fileURLToPath(new URL(`../../../build/${name}`, import.meta.url))
const finding = (name: string, verdict: Verdict, detail: string, fix?: string): Finding => ({ name, verdict, detail, ...(fix ? { fix } : {}) })
const firstLine = (text: string) => text.trim().split('\n')[0] ?? ''

/** Compares dotted version numbers. */
export function atLeast(version: string, floor: string): boolean {
  const [have, want] = [version, floor].map((text) => (/\d+(\.\d+)*/.exec(text)?.[0] ?? '0').split('.').map(Number)) as [number[], number[]]
  for (let i = 0; i < want.length; i += 1) {
    if ((have[i] ?? 0) !== want[i]!) return (have[i] ?? 0) > want[i]!
  }
  return true
}

/** A program that answers to a version flag. `floor`: the oldest that will do, and why. */
async function program(
  name: string, command: string, args: string[], fix: string, pattern: RegExp, floor?: { version: string; why: string },
): Promise<Finding> {
  let said
  try {
    said = await run(command, args, { timeoutMs: 10_000 })
  } catch {
    return finding(name, 'fail', `${command} is not installed`, fix)
  }
  const text = said.stdout + said.stderr
  const version = pattern.exec(text)?.[1]
  if (!version) return finding(name, 'warn', `cannot tell the version from '${firstLine(text)}'`)
  if (floor && !atLeast(version, floor.version)) return finding(name, 'fail', `version ${version} is older than ${floor.version}: ${floor.why}`, fix)
  return finding(name, 'ok', version)
}

const apt = (packages: string) => `apt-get install ${packages}`

function node(): Finding {
  const ok = atLeast(process.versions.node, '20.0')
  return finding('Node.js', ok ? 'ok' : 'fail', process.versions.node, 'install Node 20 or newer: https://nodejs.org/en/download')
}

function root(): Finding {
  if (process.getuid?.() === 0) return finding('privileges', 'ok', 'root')
  return finding('privileges', 'warn', 'not root: the daemon needs root, and some checks below cannot tell without it', 'run `sudo hull doctor`')
}

async function addon(): Promise<Finding> {
  try {
    await engine.native()
    return finding('native addon', 'ok', built('hull.node'))
  } catch (error) {
    return finding('native addon', 'fail', firstLine(messageOf(error)), setup)
  }
}

function executable(name: string, path: string, missing: string, fix: string): Finding {
  try {
    accessSync(path, constants.X_OK)
    return finding(name, 'ok', path)
  } catch {
    return finding(name, 'fail', missing, fix)
  }
}

async function runtime(): Promise<Finding> {
  try {
    const { locateRuntime } = await engine.runtime()
    const found = await locateRuntime('')
    const warning = found.verdict.warn
    return finding('crun', warning ? 'warn' : 'ok', warning ?? `${found.version} (${found.path})`, warning ? apt('crun') : undefined)
  } catch (error) {
    return finding('crun', 'fail', messageOf(error), apt('crun'))
  }
}

/** cgroups, kernel features and devices, as the daemon itself sees them. */
async function host(): Promise<Finding[]> {
  let facts
  try {
    facts = await (await engine.facts()).hostFacts()
  } catch (error) {
    return [finding('kernel', 'fail', `cannot be examined: ${messageOf(error)}`, 'mount the cgroup file system (mount -t cgroup2 cgroup2 /sys/fs/cgroup) and build Hull (make setup)')]
  }
  const { cgroup } = facts
  const absent = (['memoryLimit', 'cpuQuota', 'pidsLimit', 'cpuset'] as const).filter((name) => !cgroup[name])
  const need = (name: string, support: 'yes' | 'module' | 'no', module: string, verdict: Verdict = 'fail') =>
    finding(name, support === 'no' ? verdict : 'ok', support === 'yes' ? 'in the kernel' : support === 'module' ? `module ${module}, loaded when it is needed` : 'this kernel has it neither built in nor as a module', `use a kernel with ${module}`)
  return [
    finding('kernel', atLeast(facts.kernel, '5.12') ? 'ok' : 'fail', facts.kernel, 'use Linux 5.12 or newer (mount_setattr(2), openat2(2)): Debian 12 has 6.1'),
    finding('cgroups', absent.length === 0 ? 'ok' : 'warn', `${cgroup.layout}${absent.length > 0 ? `, without ${absent.join(', ')}: those limits will be refused` : ` (${cgroup.controllers.join(' ')})`}`,
      'enable the controllers: see `cgroup_enable=` in the kernel\'s command line'),
    need('bridge', facts.bridge, 'bridge'),
    finding('user namespaces', facts.userNamespaces ? 'ok' : 'warn', facts.userNamespaces ? 'allowed' : 'user.max_user_namespaces is 0; --userns-remap needs one, and programs in containers may', 'sysctl user.max_user_namespaces=15000'),
    finding('seccomp', facts.seccomp === 'filter' ? 'ok' : 'fail', facts.seccomp === 'filter' ? 'filters' : 'this kernel has no seccomp filters', 'use a kernel with CONFIG_SECCOMP_FILTER'),
    ...(facts.bridgeNetfilter?.iptables
      ? [finding('bridged frames', 'ok', 'go through iptables (br_netfilter): Hull accepts its own ahead of other engines\' rules')]
      : []),
  ]
}

/** Mounts an overlay for real, in a mount namespace that goes with the command. */
async function overlay(): Promise<Finding> {
  if (process.getuid?.() !== 0) return finding('overlayfs', 'warn', 'cannot be tried without root')
  // On a tmpfs over /tmp that only this command sees: nothing to clean up, whatever ends us.
  const script = 'mount -t tmpfs none /tmp && cd /tmp && mkdir l u w m && touch l/x && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m && rm m/x && test -c u/x'
  const said = await run('unshare', ['--mount', 'sh', '-c', script], { timeoutMs: 10_000 })
  return finding('overlayfs', said.code === 0 ? 'ok' : 'fail', said.code === 0 ? 'mounts, and keeps whiteouts' : firstLine(said.stderr), 'modprobe overlay')
}

/** A rule set with what Hull uses (sets, maps, NAT), checked by the kernel and not kept (nft --check). */
async function nftables(): Promise<Finding> {
  const rules = `table ip hull_doctor {
    map published { type inet_proto . inet_service : ipv4_addr . inet_service; }
    chain in { type nat hook prerouting priority dstnat; dnat ip to meta l4proto . th dport map @published; }
    chain out { type nat hook postrouting priority srcnat; ip saddr 192.0.2.0/24 masquerade; }
  }\n`
  try {
    const said = await run('nft', ['--check', '-f', '-'], { input: rules, timeoutMs: 10_000 })
    if (said.code === 0) return finding('nftables', 'ok', 'maps and NAT')
    if (process.getuid?.() !== 0) return finding('nftables', 'warn', 'cannot be tried without root')
    return finding('nftables', 'fail', firstLine(said.stderr), 'use a kernel with nf_tables, nft_nat and nft_masq')
  } catch {
    return finding('nftables', 'fail', 'nft is not installed', apt('nftables'))
  }
}

async function tun(): Promise<Finding> {
  try {
    await (await open('/dev/net/tun', 'r+')).close()
    return finding('/dev/net/tun', 'ok', 'opens')
  } catch (error) {
    return finding('/dev/net/tun', 'fail', `VMs get no network: ${messageOf(error)}`, 'modprobe tun')
  }
}

async function group(): Promise<Finding> {
  const said = await run('getent', ['group', 'hull'])
  return finding('group hull', said.code === 0 ? 'ok' : 'warn', said.code === 0 ? 'there' : 'not there: only root can use the socket', 'groupadd --system hull (`make install` does it)')
}

/** The parts of a VM, then a boot with each accelerator until one works. */
async function machine(boot: boolean): Promise<Finding[]> {
  let parts
  let probe
  try {
    const [jailroot, loaded] = await Promise.all([engine.jailroot(), engine.probe()])
    probe = loaded
    parts = await jailroot.findVmParts(built('guest'))
  } catch (error) {
    return [finding('guest', 'fail', messageOf(error), setup)]
  }
  const result = [finding('guest', 'ok', `kernel, initrd and supervisor in ${built('guest')}`)]
  if (!boot) return result
  const tcg = async (why: string) => {
    const booted = await probe.bootGuest(parts, 'tcg', 60_000)
    const slow = 'VMs run on software emulation (TCG): slower, and no security boundary by QEMU\'s own policy'
    result.push(finding('KVM', 'warn', `${why}; ${slow}`, 'use a machine with hardware virtualization (enable VT-x or AMD-V, or nested virtualization), then modprobe kvm_intel or kvm_amd'))
    result.push(booted.ok
      ? finding('guest boot (TCG)', 'ok', `${booted.kernel} said hello after ${booted.milliseconds} ms`)
      : finding('guest boot (TCG)', 'fail', booted.reason ?? 'no reason known', setup))
  }
  if (!existsSync('/dev/kvm')) await tcg('there is no /dev/kvm')
  else {
    const booted = await probe.bootGuest(parts, 'kvm', probe.KVM_TIMEOUT)
    if (booted.ok) result.push(finding('KVM', 'ok', `booted a guest (${booted.kernel}) in ${booted.milliseconds} ms`))
    else await tcg(`/dev/kvm is there, but a guest does not boot with it: ${booted.reason ?? 'no reason known'}`)
  }
  return result
}

/** Without it everything works but one corner, so its absence is a warning. */
async function conntrack(): Promise<Finding> {
  const found = await program('conntrack', 'conntrack', ['--version'], apt('conntrack'), /conntrack v(\S+)/)
  return found.verdict === 'ok' ? found : { ...found, verdict: 'warn', detail: `${found.detail}: UDP clients of a published port may be sent to a container that is gone, until they pause` }
}

/** The file server of mounts in a VM; without it VMs that have none work. */
async function virtiofsd(): Promise<Finding> {
  const path = ['/usr/libexec/virtiofsd', '/usr/lib/qemu/virtiofsd'].find((candidate) => existsSync(candidate))
  if (path === undefined) return finding('virtiofsd', 'warn', 'not installed: VMs get no volumes and bind mounts', apt('virtiofsd (Debian 12: qemu-system-common)'))
  return finding('virtiofsd', 'ok', firstLine((await run(path, ['--version'], { timeoutMs: 10_000 })).stdout))
}

/** All checks, in the order in which they are shown; each is given to `show` as soon as it is known. */
export async function runChecks(options: { boot: boolean }, show: (finding: Finding) => void): Promise<Finding[]> {
  const groups: (() => Finding | Promise<Finding | Finding[]>)[] = [
    node, root, addon, host, overlay, runtime,
    () => executable('monitor', built('hull-monitor'), `${built('hull-monitor')} is missing`, setup),
    () => executable('unpacker', built('hull-unpack'), `${built('hull-unpack')} is missing`, setup),
    nftables,
    conntrack,
    () => executable('tini', '/usr/bin/tini-static', '/usr/bin/tini-static is missing: --init cannot be used', apt('tini')),
    tun,
    () => program('QEMU', 'qemu-system-x86_64', ['--version'], apt('qemu-system-x86'), /version (\S+)/, { version: '7.2', why: 'Hull is tested with 7.2 and newer' }),
    () => program('mkfs.erofs', 'mkfs.erofs', ['--version'], apt('erofs-utils'), /mkfs\.erofs (?:\(erofs-utils\) )?(\S+)/, { version: '1.5', why: 'Debian 12 has 1.5' }),
    () => program('bubblewrap', 'bwrap', ['--version'], apt('bubblewrap'), /bubblewrap (\S+)/),
    () => program('mke2fs', 'mke2fs', ['-V'], apt('e2fsprogs'), /mke2fs (\S+)/),
    virtiofsd,
    () => machine(options.boot),
    group,
  ]
  const findings: Finding[] = []
  for (const check of groups) {
    for (const found of [await check()].flat()) {
      findings.push(found)
      show(found)
    }
  }
  return findings
}

