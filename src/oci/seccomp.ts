import { release } from 'node:os'
import { badRequest, messageOf } from '../base/errors.js'
import {
  ALLOWED, ALLOWED_ON, ALLOWED_WITH, CLONE_NEW, PERSONALITIES, REFUSED, SOCKET_FAMILIES, SOCKET_FAMILIES_NET_ADMIN,
} from './seccomp-profile.js'

/** A condition on an argument of a system call. */
export interface SeccompArgument {
  index: number
  value: number
  valueTwo?: number
  op: string
}

/** A rule of the runtime-spec's linux.seccomp. */
export interface SeccompRule {
  names: string[]
  action: string
  errnoRet?: number
  args?: SeccompArgument[]
}

/** The runtime-spec's linux.seccomp. */
export interface SeccompConfig {
  defaultAction: string
  defaultErrnoRet?: number
  architectures?: string[]
  flags?: string[]
  syscalls: SeccompRule[]
}

const EPERM = 1
const ENOSYS = 38
const EAFNOSUPPORT = 97
const words = (text: string) => text.split(/\s+/).filter(Boolean)
const allow = (names: string[], ...args: SeccompArgument[]): SeccompRule => ({ names, action: 'SCMP_ACT_ALLOW', ...(args.length > 0 ? { args } : {}) })
const refuse = (names: string[], errnoRet: number, ...args: SeccompArgument[]): SeccompRule => ({ names, action: 'SCMP_ACT_ERRNO', errnoRet, ...(args.length > 0 ? { args } : {}) })

/** The low 32 bits of an argument: the kernel takes an int, but a program may set the other half, and `==` would compare that too. */
const low32 = (index: number, value: number): SeccompArgument => ({ index, value: 0xffffffff, valueTwo: value, op: 'SCMP_CMP_MASKED_EQ' })

/**
 * Node's process.arch → libseccomp's architectures. arm64 has its 32-bit sibling with it. i386 has not: its `socketcall` takes the family from
 * memory, and libseccomp turns "socket with these families" into "socketcall for any socket" there, which is AF_ALG again. Programs of
 * an architecture that is not listed end with SIGSYS; who needs i386 brings a profile. x32: nobody ships it.
 */
const ARCHITECTURES: Record<string, string[]> = {
  x64: ['SCMP_ARCH_X86_64'],
  arm64: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
}
/** The native architecture of an archMap entry. */
const NATIVE: Record<string, string> = { x64: 'SCMP_ARCH_X86_64', arm64: 'SCMP_ARCH_AARCH64' }

const built = new Map<string, SeccompConfig>()

/** Hull's default profile for a container with these capabilities ('CAP_…'). The same object for the same set: do not change it. */
export function defaultSeccomp(capabilities: readonly string[], arch: string = process.arch): SeccompConfig {
  // Only what the profile asks about counts, so there are few.
  const key = `${arch} ${[...ALLOWED_WITH.map(([name]) => name), 'CAP_NET_ADMIN'].filter((name) => capabilities.includes(name)).join()}`
  let profile = built.get(key)
  if (!profile) built.set(key, (profile = buildDefault(capabilities, arch)))
  return profile
}

function buildDefault(capabilities: readonly string[], arch: string): SeccompConfig {
  const has = (name: string) => capabilities.includes(name)
  const allowed = new Set(Object.values(ALLOWED).flatMap(words))
  for (const name of words(ALLOWED_ON[arch] ?? '')) allowed.add(name)
  const gated = new Set<string>()
  for (const [capability, calls] of ALLOWED_WITH) {
    for (const name of words(calls)) {
      gated.add(name)
      if (has(capability)) allowed.add(name)
    }
  }
  const rules: SeccompRule[] = [allow([...allowed])]
  const refused = [...gated, ...words(REFUSED)].filter((name) => !allowed.has(name) && name !== 'clone' && name !== 'clone3')
  rules.push(refuse(refused, EPERM))
  const families = [...SOCKET_FAMILIES, ...(has('CAP_NET_ADMIN') ? SOCKET_FAMILIES_NET_ADMIN : [])]
  for (const family of families) rules.push(allow(['socket'], low32(0, family)))
  for (let family = 0; family < 64; family++) if (!families.includes(family)) rules.push(refuse(['socket'], EAFNOSUPPORT, low32(0, family)))
  rules.push(allow(['socketpair'], low32(0, 1)))
  for (const value of PERSONALITIES) rules.push(allow(['personality'], { index: 0, value, op: 'SCMP_CMP_EQ' }))
  if (!has('CAP_SYS_ADMIN')) {
    const all = CLONE_NEW.reduce((sum, flag) => sum + flag, 0)
    rules.push(allow(['clone'], { index: 0, value: all, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }))
    for (const flag of CLONE_NEW) rules.push(refuse(['clone'], EPERM, { index: 0, value: flag, valueTwo: flag, op: 'SCMP_CMP_MASKED_EQ' }))
    rules.push(refuse(['clone3'], ENOSYS)) // its flags lie in memory; libc falls back to clone
  }
  return { defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: ENOSYS, ...(ARCHITECTURES[arch] ? { architectures: ARCHITECTURES[arch] } : {}), syscalls: rules }
}

// ---- profiles in Docker's format -----------------------------------------------------------------------------------

/** A profile is some 15 kB; this one is hostile. */
const MAX_PROFILE = 1 << 20
const MAX_RULES = 4096
const MAX_NAMES = 16384
/** No SCMP_ACT_NOTIFY: it would hand the container's system calls to a socket of the host. */
const ACTIONS = new Set(['SCMP_ACT_KILL', 'SCMP_ACT_KILL_PROCESS', 'SCMP_ACT_KILL_THREAD', 'SCMP_ACT_TRAP', 'SCMP_ACT_ERRNO', 'SCMP_ACT_TRACE', 'SCMP_ACT_ALLOW', 'SCMP_ACT_LOG'])
const OPERATORS = new Set(['SCMP_CMP_NE', 'SCMP_CMP_LT', 'SCMP_CMP_LE', 'SCMP_CMP_EQ', 'SCMP_CMP_GE', 'SCMP_CMP_GT', 'SCMP_CMP_MASKED_EQ'])
const FLAGS = new Set(['SECCOMP_FILTER_FLAG_TSYNC', 'SECCOMP_FILTER_FLAG_LOG', 'SECCOMP_FILTER_FLAG_SPEC_ALLOW'])
/** Go's names, in includes.arches and excludes.arches. */
const GO_ARCHITECTURES: Record<string, string> = { x64: 'amd64', arm64: 'arm64', ia32: 'x86', arm: 'arm', s390x: 's390x', ppc64: 'ppc64le', riscv64: 'riscv64' }

type Fields = Record<string, unknown>

class ProfileError extends Error {}

function fieldsOf(value: unknown, where: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new ProfileError(`${where}: an object is wanted`)
  return value as Fields
}

function listOf(value: unknown, where: string, limit: number): unknown[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw new ProfileError(`${where}: a list is wanted`)
  if (value.length > limit) throw new ProfileError(`${where}: more than ${limit} entries`)
  return value
}

function namesOf(value: unknown, where: string, pattern: RegExp): string[] {
  return listOf(value, where, MAX_NAMES).map((name) => {
    if (typeof name !== 'string' || !pattern.test(name)) throw new ProfileError(`${where}: ${JSON.stringify(name)?.slice(0, 80)} is not a name`)
    return name
  })
}

function numberOf(value: unknown, where: string, maximum: number): number {
  // JSON's numbers are exact up to 2^53: a larger mask would silently be another one.
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > maximum) throw new ProfileError(`${where}: a whole number from 0 to ${maximum} is wanted`)
  return value
}

function wordOf(value: unknown, where: string, words: ReadonlySet<string>): string {
  if (typeof value !== 'string' || !words.has(value)) throw new ProfileError(`${where}: ${JSON.stringify(value)?.slice(0, 80)} is not known`)
  return value
}

interface Condition {
  caps: string[]
  arches: string[]
  minKernel: string
}

function conditionOf(value: unknown, where: string): Condition {
  if (value === undefined || value === null) return { caps: [], arches: [], minKernel: '' }
  const fields = fieldsOf(value, where)
  const minKernel = fields.minKernel ?? ''
  if (typeof minKernel !== 'string' || !/^(\d{1,4}\.\d{1,4})?$/.test(minKernel)) throw new ProfileError(`${where}.minKernel: want VERSION.PATCHLEVEL`)
  return { caps: namesOf(fields.caps, `${where}.caps`, /^CAP_[A-Z_]{1,40}$/), arches: namesOf(fields.arches, `${where}.arches`, /^\w{1,20}$/), minKernel }
}

function kernelAtLeast(wanted: string, have: string): boolean {
  const [major = 0, minor = 0] = wanted.split('.').map(Number)
  const [haveMajor = 0, haveMinor = 0] = have.split(/[.-]/).map(Number)
  return haveMajor > major || (haveMajor === major && haveMinor >= minor)
}

/** What a profile's conditions are held against. */
export interface ProfileHost {
  capabilities: readonly string[]
  /** Node's process.arch */
  arch?: string
  /** uname -r */
  kernel?: string
}

/** moby profiles/seccomp: a rule holds when nothing excludes it and all that it includes is there (any architecture, every capability). */
function applies(rule: Fields, where: string, host: ProfileHost): boolean {
  const [includes, excludes] = [conditionOf(rule.includes, `${where}.includes`), conditionOf(rule.excludes, `${where}.excludes`)]
  const arch = GO_ARCHITECTURES[host.arch ?? process.arch] ?? ''
  const kernel = host.kernel ?? release()
  if (excludes.arches.includes(arch)) return false
  if (excludes.caps.some((name) => host.capabilities.includes(name))) return false
  if (excludes.minKernel !== '' && kernelAtLeast(excludes.minKernel, kernel)) return false
  if (includes.arches.length > 0 && !includes.arches.includes(arch)) return false
  if (!includes.caps.every((name) => host.capabilities.includes(name))) return false
  return includes.minKernel === '' || kernelAtLeast(includes.minKernel, kernel)
}

function ruleOf(rule: Fields, where: string): SeccompRule {
  const names = [...(rule.name === undefined || rule.name === '' ? [] : [rule.name]), ...listOf(rule.names, `${where}.names`, MAX_NAMES)]
  if (rule.name && Array.isArray(rule.names) && rule.names.length > 0) throw new ProfileError(`${where}: "name" and "names" were specified`)
  const args = listOf(rule.args, `${where}.args`, 6).map((value, i): SeccompArgument => {
    const fields = fieldsOf(value, `${where}.args[${i}]`)
    return {
      index: numberOf(fields.index, `${where}.args[${i}].index`, 5),
      value: numberOf(fields.value, `${where}.args[${i}].value`, Number.MAX_SAFE_INTEGER),
      ...(fields.valueTwo === undefined ? {} : { valueTwo: numberOf(fields.valueTwo, `${where}.args[${i}].valueTwo`, Number.MAX_SAFE_INTEGER) }),
      op: wordOf(fields.op, `${where}.args[${i}].op`, OPERATORS),
    }
  })
  return {
    names: namesOf(names, `${where}.names`, /^[a-z_][a-z0-9_]{0,63}$/),
    action: wordOf(rule.action, `${where}.action`, ACTIONS),
    ...(rule.errnoRet === undefined || rule.errnoRet === null ? {} : { errnoRet: numberOf(rule.errnoRet, `${where}.errnoRet`, 4095) }),
    ...(args.length > 0 ? { args } : {}),
  }
}

function architecturesOf(profile: Fields, host: ProfileHost): string[] | undefined {
  const direct = namesOf(profile.architectures, 'architectures', /^SCMP_ARCH_[A-Z0-9_]{1,20}$/)
  const map = listOf(profile.archMap, 'archMap', 64)
  if (direct.length > 0 && map.length > 0) throw new ProfileError('"architectures" and "archMap" were specified')
  const native = NATIVE[host.arch ?? process.arch]
  for (const [i, value] of map.entries()) {
    const entry = fieldsOf(value, `archMap[${i}]`)
    if (entry.architecture === native && native !== undefined) return [native, ...namesOf(entry.subArchitectures, `archMap[${i}].subArchitectures`, /^SCMP_ARCH_[A-Z0-9_]{1,20}$/)]
  }
  return direct.length > 0 ? direct : undefined
}

/** `--security-opt seccomp=FILE`: the text of a profile in Docker's format, for this host and these capabilities. 400 when it is not one. */
export function parseSeccompProfile(text: string, host: ProfileHost): SeccompConfig {
  try {
    if (Buffer.byteLength(text) > MAX_PROFILE) throw new ProfileError(`larger than ${MAX_PROFILE} bytes`)
    const profile = fieldsOf(JSON.parse(text), 'profile')
    if (profile.listenerPath !== undefined || profile.listenerMetadata !== undefined) throw new ProfileError('listenerPath: not supported')
    const architectures = architecturesOf(profile, host)
    const flags = listOf(profile.flags, 'flags', 8).map((flag) => wordOf(flag, 'flags', FLAGS))
    const rules = listOf(profile.syscalls, 'syscalls', MAX_RULES).map((rule, i) => ({ fields: fieldsOf(rule, `syscalls[${i}]`), where: `syscalls[${i}]` }))
    const parsed = rules.map(({ fields, where }) => ({ applies: applies(fields, where, host), rule: ruleOf(fields, where) }))
    return {
      defaultAction: wordOf(profile.defaultAction, 'defaultAction', ACTIONS),
      ...(profile.defaultErrnoRet === undefined || profile.defaultErrnoRet === null ? {} : { defaultErrnoRet: numberOf(profile.defaultErrnoRet, 'defaultErrnoRet', 4095) }),
      ...(architectures ? { architectures } : {}),
      ...(flags.length > 0 ? { flags } : {}),
      syscalls: parsed.filter((entry) => entry.applies && entry.rule.names.length > 0).map((entry) => entry.rule),
    }
  } catch (error) {
    throw badRequest(`Decoding seccomp profile failed: ${messageOf(error)}`, error)
  }
}

/** The filter for a workload: 'default', 'unconfined' (none) or a profile's text. */
export function seccompFor(setting: string, capabilities: readonly string[]): SeccompConfig | undefined {
  if (setting === 'unconfined') return undefined
  return setting === 'default' || setting === '' ? defaultSeccomp(capabilities) : parseSeccompProfile(setting, { capabilities })
}
