import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sleep, TestDaemon, until } from '../lib/daemon.js'
import { buildTestImage, testImage } from '../lib/image.js'
import { remains } from '../lib/traces.js'

// Clones of one memory template are different machines, as a user of docker meets them. docs/decisions/0013-templates.md.

/** How many clones are compared, and how many of them start at once; `HULL_CLONES=50` is the long form. */
const clones = Number(process.env.HULL_CLONES ?? 8)
const atOnce = 4
/** How long a template may have been up when it was saved, nanoseconds; and how much older, ms, one is in the end. */
const TEMPLATE_UP = 16_000_000_000n
const AGE = 18_000

let daemon: TestDaemon

beforeAll(async () => {
  daemon = await TestDaemon.start()
  await buildTestImage(daemon)
  await daemon.ok('run', '--rm', '--isolation=vm', '--privileged', testImage, 'true') // asks for the template
  await until('the template is made', async () => (await readdir(join(daemon.dataRoot, 'vm/templates')).catch(() => [])).some((name) => /^[0-9a-f]{32}$/.test(name)), 120_000)
}, 180_000)

afterAll(async () => {
  await daemon.destroy()
  expect(await remains(daemon)).toEqual([])
})

/**
 * What tells one machine from another. --privileged shows /proc/timer_list: the kernel's own offsets, in nanoseconds, of CLOCK_REALTIME and CLOCK_BOOTTIME to the monotonic clock. Their difference is the moment of the
 * machine's boot, of which `btime` is the whole seconds.
 */
const look = [
  'echo random $(od -An -N32 -tx1 /dev/urandom | tr -d " \\n")',
  'echo bootId $(cat /proc/sys/kernel/random/boot_id)',
  'echo newId $(cat /proc/sys/kernel/random/uuid)',
  'echo machineId $(cat /etc/machine-id /var/lib/dbus/machine-id 2> /dev/null || echo none)',
  'echo product $(cat /sys/class/dmi/id/product_uuid /sys/class/dmi/id/product_serial 2> /dev/null || echo none)',
  'echo mac $(cat /sys/class/net/eth0/address)',
  'echo address $(ip -o -4 addr show eth0 | awk "{print \\$4}")',
  'echo hostname $(hostname)',
  'echo layout $(awk "/\\[(stack|vdso|heap)\\]/{print \\$1}" /proc/self/maps)',
  'echo offsets $(grep -m3 "\\.offset:" /proc/timer_list | awk "{print \\$2}")',
  'echo btime $(awk "/^btime/{print \\$2}" /proc/stat)',
  'echo uptime $(cut -d" " -f1 /proc/uptime)',
  'echo now $(date +%s)',
].join('; ')

interface Machine {
  /** How it came to life (vm.json). */
  start: string
  facts: Map<string, string>
  /** The host's time before `docker run` and after the machine has told of itself, nanoseconds. */
  before: bigint
  after: bigint
}

const hostTime = () => BigInt(Date.now()) * 1_000_000n

async function clone(n: number): Promise<Machine> {
  const before = hostTime()
  const id = await daemon.ok('run', '-d', '--isolation=vm', '--privileged', '--name', `clone-${n}`, testImage, 'sh', '-c', `${look}; exec sleep 600`)
  const lines = await until('it has told all', async () => {
    const said = (await daemon.ok('logs', `clone-${n}`)).split('\n')
    return said.some((line) => line.startsWith('now ')) && said
  })
  const after = hostTime()
  const { start } = JSON.parse(await readFile(join(daemon.execRoot, 'containers', id, 'vm.json'), 'utf8')) as { start?: string }
  return { start: start ?? 'boot', facts: new Map(lines.map((line) => [line.split(' ')[0]!, line.slice(line.indexOf(' ') + 1)])), before, after }
}

/** When it booted, by its own clocks: nanoseconds since the epoch. */
function booted({ facts }: Machine): bigint {
  const [, realtime, boottime] = facts.get('offsets')!.split(' ').map(BigInt)
  return realtime! - boottime!
}

it(`${clones} clones, ${atOnce} at a time, are ${clones} machines: random numbers, identifiers, addresses, and the moment of their boot`, async () => {
  const machines: Machine[] = []
  for (let n = 0; n < clones; n += atOnce) machines.push(...(await Promise.all(Array.from({ length: Math.min(atOnce, clones - n) }, (_, i) => clone(n + i)))))
  // Of the template of any image, and then of the image's own.
  for (const { start } of machines) expect(['template', 'image']).toContain(start)

  const different = (what: string, values: readonly string[]) => expect({ what, different: new Set(values).size, empty: values.filter((value) => value === '').length }).toEqual({ what, different: clones, empty: 0 })
  for (const name of ['random', 'bootId', 'newId', 'layout', 'mac', 'address', 'hostname']) different(name, machines.map(({ facts }) => facts.get(name) ?? ''))
  // Nothing of the machine's own stands in for them: the image has no machine id, as most have none, and there is no firmware table that systemd could make one of.
  expect(machines.map(({ facts }) => [facts.get('machineId'), facts.get('product')])).toEqual(machines.map(() => ['none', 'none']))

  different('the moment of the boot', machines.map((machine) => String(booted(machine))))
  for (const machine of machines) {
    const { facts, before, after } = machine
    const moment = booted(machine)
    expect(BigInt(facts.get('btime')!)).toBe(moment / 1_000_000_000n)
    // Uptime counts from the start of the clone, and as much more as the template had been up (some seconds on a busy host): not from the template's boot.
    expect({ early: moment > before - TEMPLATE_UP, late: moment < after }).toEqual({ early: true, late: true })
    expect(Math.abs(Number(facts.get('uptime')) + Number(moment) / 1e9 - Number(facts.get('now')))).toBeLessThan(2)
  }
  // A template that is used much later: the same, and not the time that has passed since.
  await sleep(AGE)
  const later = await clone(clones)
  expect(['template', 'image']).toContain(later.start)
  expect(booted(later) > later.before - TEMPLATE_UP).toBe(true)
}, 60_000 + clones * 8000)

/** What a workload sees of itself and of its walls; nothing that two containers need not have in common. `started`: of its first process, ticks since the template's boot. */
const view = [
  'sort /proc/mounts', 'find /dev | sort', 'grep -E "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig...:|Umask|NSpid)" /proc/1/status', 'cat /proc/1/limits /proc/1/oom_score_adj /proc/self/cgroup',
  'cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/domainname', 'ls /proc/1/fd', 'pwd', 'umask', 'id', 'env | grep -v HOSTNAME | sort', 'stat -c "%A %u:%g %n" . /etc/hosts /etc/resolv.conf',
  'echo started $(awk "{print \\$22}" /proc/1/stat)',
].join('; ')

/** A start from the image's own template: what it says, and when its first process was made, seconds since the template's boot. */
async function seen(...flags: string[]): Promise<{ text: string; started: number }> {
  return until('the image has a template of its own', async () => {
    const id = await daemon.ok('run', '-d', '--isolation=vm', ...flags, testImage, 'sh', '-c', `${view}; exec sleep 600`)
    const text = await until('it has told all', async () => /([^]*)\nstarted (\d+)/.exec(await daemon.ok('logs', id)) ?? undefined)
    const { start } = JSON.parse(await readFile(join(daemon.execRoot, 'containers', id, 'vm.json'), 'utf8')) as { start?: string }
    await daemon.ok('rm', '-f', id)
    return start === 'image' ? { text: text[1]!, started: Number(text[2]) / 100 } : undefined
  }, 60_000)
}

it('a container whose first process waited in the template is like one whose process was made for it', async () => {
  const flags = [
    [],
    ['--read-only', '--tmpfs', '/made:size=1m', '--domainname', 'd.example', '-e', 'A=B'],
    ['--init', '-u', '1000:1000', '-w', '/made/for/it', '--ulimit', 'nofile=99:100', '--cap-drop=ALL', '--cap-add=CHOWN', '--oom-score-adj', '7', '--security-opt', 'no-new-privileges', '-i', '--pids-limit', '50', '-m', '300m'],
    ['-t'],
  ]
  for (const some of flags) {
    const waited = await seen(...some)
    // The kernel's own default: it changes nothing, and who asks for a sysctl gets a new process.
    const made = await seen(...some, '--sysctl', 'net.ipv4.ip_default_ttl=64')
    expect(waited.text).toBe(made.text)
    // One is as old as the template, which ran some seconds more before it was saved.
    expect(made.started - waited.started).toBeGreaterThan(3)
  }
}, 180_000)

it('what asks for another view of the machine gets it, from the image\'s own template as well', async () => {
  const run = (flags: string[], command: string) => daemon.ok('run', '--rm', '--isolation=vm', ...flags, testImage, 'sh', '-c', command)
  await seen()
  expect(await run(['--privileged'], 'grep -c "sysfs rw" /proc/mounts; test -e /dev/kmsg && echo kmsg')).toBe('1\nkmsg')
  expect(await run(['--shm-size', '8m'], 'df -k /dev/shm | tail -1 | awk "{print \\$2}"')).toBe('8192')
  expect(await run(['--sysctl', 'net.ipv4.ip_unprivileged_port_start=777'], 'cat /proc/sys/net/ipv4/ip_unprivileged_port_start')).toBe('777')
  expect(await run(['--security-opt', 'systempaths=unconfined'], 'grep -c " /proc/" /proc/mounts || true')).toBe('0')
  expect(await run(['--tmpfs', '/sys/firmware'], 'grep -c " /sys/firmware " /proc/mounts')).toBe('2')
  expect(await run(['-v', '/etc/hostname:/its/name:ro'], 'cat /its/name')).toBe((await readFile('/etc/hostname', 'utf8')).trim())
  for (const length of [60_000, 70_000]) expect(await run(['-e', `LONG=${'x'.repeat(length)}`], 'echo ${#LONG}')).toBe(String(length)) // less and more than goes over in one message
}, 120_000)

it('two of them have different random numbers, layouts and identifiers', async () => {
  const say = 'od -An -N32 -tx1 /dev/urandom | tr -d " \\n"; echo; cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; awk "/\\[(stack|vdso|heap)\\]/{print \\$1}" /proc/self/maps; cat /sys/class/net/eth0/address; hostname'
  const said = await Promise.all([1, 2].map(() => daemon.ok('run', '--rm', '--isolation=vm', testImage, 'sh', '-c', say)))
  const [a, b] = said.map((text) => text.split('\n'))
  expect(a!.length).toBeGreaterThan(6)
  expect(a!.filter((line) => b!.includes(line))).toEqual([])
}, 60_000)
