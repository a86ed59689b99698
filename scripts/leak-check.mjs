// leak-check.mjs snapshot FILE [job] | compare FILE RESULT
// What the engine may leave behind in the kernel and on disk: network namespaces, links, mounts, cgroups, nftables, processes, files. `compare` prints what is there
// now and was not in FILE, writes it to RESULT as JSON, and exits with 1 when there is any. `job`: one of several beside each other, each in namespaces of its own; what belongs to no
// namespace (loop devices) may be another's, and is left to the look at the whole machine after all of them. Plain Node and /proc, no library: it judges the project, so it uses none of it.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const read = (path) => { try { return readFileSync(path, 'utf8') } catch { return '' } }
const list = (path) => { try { return readdirSync(path) } catch { return [] } }
const link = (path) => { try { return readlinkSync(path) } catch { return '' } }

function processes() {
  const names = /^(hull-monitor|conmon|crun|runc|runsc|runsc-wrap|crun-wrap|hull-vmm|virtiofsd|hull-unpack|hulld|qemu-system-.*|bwrap|dockerd|containerd)$/
  const found = []
  for (const pid of list('/proc').filter((name) => /^\d+$/.test(name))) {
    const words = read(`/proc/${pid}/cmdline`).split('\0')
    const program = words[0]?.split('/').pop() ?? ''
    const daemon = /^node/.test(program) && words.some((word) => /(^|\/)hulld?$/.test(word)) && words.includes('daemon')
    if (names.test(program) || daemon) found.push(`${pid} ${words.join(' ').trim().slice(0, 200)}`)
  }
  return found
}

function networkNamespaces() {
  const found = new Set()
  for (const pid of list('/proc').filter((name) => /^\d+$/.test(name))) found.add(link(`/proc/${pid}/ns/net`))
  for (const line of read('/proc/self/mountinfo').split('\n')) {
    const nsfs = / - nsfs /.test(line) ? /(net:\[\d+\])/.exec(line)?.[1] : undefined
    if (nsfs) found.add(nsfs)
  }
  return [...found].filter(Boolean)
}

function cgroups(directory = '/sys/fs/cgroup', depth = 0) {
  if (depth > 8) return []
  let found = []
  let entries = []
  try { entries = readdirSync(directory, { withFileTypes: true }) } catch { return [] }
  for (const entry of entries) {
    if (!entry.isDirectory()) continue
    const path = join(directory, entry.name)
    found.push(path, ...cgroups(path, depth + 1))
  }
  // systemd and login sessions make cgroups of their own whenever they like.
  return found.filter((path) => !/\/(user|system|machine|init)\.(slice|scope)/.test(path))
}

function nftables() {
  try {
    // Counters and handles change by themselves; elements, rules and chains do not.
    return execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
      .split('\n').map((line) => line.replace(/counter packets \d+ bytes \d+/g, 'counter').trim()).filter(Boolean)
  } catch {
    return []
  }
}

function loopDevices() {
  const backing = (name) => `/sys/block/${name}/loop/backing_file`
  return list('/sys/block').filter((name) => name.startsWith('loop') && existsSync(backing(name))).map((name) => `${name} ${read(backing(name)).trim()}`)
}

function snapshot(job) {
  return {
    'network namespace': networkNamespaces(),
    link: list('/sys/class/net'),
    mount: read('/proc/self/mountinfo').split('\n').filter(Boolean).map((line) => { const words = line.split(' '); return `${words[4]} (${line.split(' - ')[1]?.split(' ')[0]})` }),
    cgroup: cgroups(),
    nftables: nftables(),
    process: processes(),
    file: [
      ...list('/run').filter((name) => name.startsWith('hull')).map((name) => `/run/${name}`),
      ...list('/tmp').filter((name) => /^hull/.test(name)).map((name) => `/tmp/${name}`),
      ...list('/run/netns').map((name) => `/run/netns/${name}`),
      ...list('/var/lib').filter((name) => name.startsWith('hull')).map((name) => `/var/lib/${name}`),
      ...list('/dev/shm').filter((name) => name.startsWith('hull')).map((name) => `/dev/shm/${name}`),
    ],
    ...(job ? {} : { 'loop device': loopDevices() }),
  }
}

/** What there is more of in `after`, counted: two equal rules are two. */
function difference(before, after) {
  const left = new Map()
  for (const item of before) left.set(item, (left.get(item) ?? 0) + 1)
  return after.filter((item) => {
    const count = left.get(item) ?? 0
    if (count > 0) left.set(item, count - 1)
    return count === 0
  })
}

const [verb, file, argument] = process.argv.slice(2)
if (verb === 'snapshot') {
  writeFileSync(file, JSON.stringify(snapshot(argument === 'job')))
} else if (verb === 'compare') {
  const before = JSON.parse(readFileSync(file, 'utf8'))
  let leaks = []
  // The kernel takes namespaces, links and cgroups apart in the background: it gets ten seconds for that.
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const after = snapshot(false)
    leaks = Object.keys(before).flatMap((kind) => difference(before[kind], after[kind]).map((item) => `${kind}: ${item}`))
    if (leaks.length === 0) break
    await new Promise((resolve) => { setTimeout(resolve, 500) })
  }
  for (const leak of leaks) console.log(`leaked ${leak}`)
  if (leaks.length === 0) console.log('nothing is left behind')
  if (argument) writeFileSync(argument, JSON.stringify(leaks))
  process.exit(leaks.length === 0 ? 0 : 1)
} else {
  console.error('usage: leak-check.mjs snapshot FILE [job] | compare FILE RESULT')
  process.exit(2)
}
