import { isDeepStrictEqual } from 'node:util'
import { isMap, isScalar, LineCounter, parseDocument, type Document, type YAMLMap } from 'yaml'
import { z } from 'zod'
import { messageOf } from '../base/errors.js'
import { addMode, addMount, addSecurityOption, capabilityName, isolationNow, isShared, noNeeds } from './needs.js'
import { IO_PROFILES, TRUSTS, type Asked, type Needs, type Wall } from './types.js'

/** No Compose file is larger; what is, costs memory for nothing. Bytes. */
const LIMIT = 1 << 20

const text = z.union([z.string(), z.number()]).transform(String)
const texts = z.array(text).nullish()
const mode = z.string().nullish()
const volume = z.union([text, z.looseObject({ type: mode, source: text.nullish(), bind: z.looseObject({ propagation: mode }).nullish() })])
const device = z.union([text, z.looseObject({ source: text.nullish() })])
/** What the rules look at (compose-spec, 05-services.md); every other key is Compose's business. */
const service = z.looseObject({
  isolation: mode, privileged: z.boolean().nullish(), cap_add: texts, pid: mode, ipc: mode, uts: mode, cgroup: mode, network_mode: mode, devices: z.array(device).nullish(), device_cgroup_rules: texts,
  runtime: mode, security_opt: texts, volumes: z.array(volume).nullish(), ports: z.array(z.unknown()).nullish(), scale: z.number().int().nonnegative().nullish(), extends: z.unknown().optional(),
  deploy: z.looseObject({ replicas: z.number().int().nonnegative().nullish() }).nullish(),
  'x-hull': z.looseObject({ trust: z.enum(TRUSTS).optional(), kernel: text.optional(), modules: z.boolean().optional(), io: z.enum(IO_PROFILES).optional(), start_budget_ms: z.number().positive().optional() }).nullish(),
})
type Service = z.infer<typeof service>

export interface ComposeFile { source: string; document: Document.Parsed; services: { name: string; isolation: string | undefined; needs: Needs }[] }

function parse(source: string): { document: Document.Parsed; value: unknown } {
  const document = parseDocument(source, { lineCounter: new LineCounter(), uniqueKeys: true, merge: true, prettyErrors: true })
  const [problem] = document.errors
  if (problem) throw new Error(problem.message.split('\n')[0]!.replace(/:$/, ''))
  try {
    // A few kB of aliases of aliases would be GB otherwise.
    return { document, value: document.toJS({ maxAliasCount: 100 }) as unknown }
  } catch (error) {
    throw new Error(`YAML: ${messageOf(error)}`, { cause: error })
  }
}

/** A Compose file's services and what they need. Throws an Error with line and column, or the place of a wrong value, in words. */
export function readCompose(source: string, asked: Asked): ComposeFile {
  if (Buffer.byteLength(source) > LIMIT) throw new Error(`larger than ${LIMIT} bytes`)
  const { document, value } = parse(source)
  const all = z.looseObject({ services: z.record(z.string(), z.unknown()), include: z.unknown().optional() }).safeParse(value)
  if (!all.success || !isMap(document.get('services'))) throw new Error('services must be a mapping')
  const services = Object.entries(all.data.services).map(([name, raw]) => {
    const result = service.safeParse(raw)
    if (!result.success) {
      const [issue] = result.error.issues
      const hint = JSON.stringify(raw)?.includes('${') ? ' (variables are not filled in here: give the output of `docker compose config`)' : ''
      throw new Error(`services.${[name, ...(issue?.path ?? [])].join('.')}: ${issue?.message ?? 'wrong'}${hint}`)
    }
    return { name, isolation: result.data.isolation ?? undefined, needs: needsOf(name, result.data, asked), joins: [result.data.network_mode, result.data.pid, result.data.ipc] }
  })
  if (services.length === 0) throw new Error('no service in the file')
  for (const { name, joins } of services) {
    for (const donor of services.filter((other) => joins.includes(`service:${other.name}`))) donor.needs.namespaces.push(`${name} joins a namespace of it`)
  }
  return { source, document, services }
}

const asUnknown = (of: Service, key: string) => JSON.stringify(of[key] ?? '').includes('${')

function needsOf(name: string, of: Service, asked: Asked): Needs {
  const own = of['x-hull'] ?? {}
  const needs = noNeeds(name, {
    trust: own.trust ?? asked.trust, kernel: own.kernel ?? asked.kernel, modules: own.modules ?? asked.modules, io: own.io ?? asked.io, startBudget: own.start_budget_ms ?? asked.startBudget,
    instances: Math.max(asked.instances, of.deploy?.replicas ?? of.scale ?? 1),
  })
  needs.now = isolationNow(of.isolation)
  needs.privileged = of.privileged === true
  needs.capabilities = (of.cap_add ?? []).map(capabilityName)
  addMode(needs, '--pid', of.pid)
  addMode(needs, '--ipc', of.ipc)
  addMode(needs, '--uts', of.uts)
  addMode(needs, '--cgroupns', of.cgroup)
  addMode(needs, '--network', of.network_mode)
  needs.devices = [...(of.devices ?? []).map((one) => `device ${typeof one === 'string' ? one.split(':')[0]! : (one.source ?? '?')}`), ...(of.device_cgroup_rules ?? []).map((rule) => `device rule '${rule}'`)]
  if (of.runtime && of.runtime !== 'crun') needs.processOnly.push(`runtime ${of.runtime}`)
  for (const option of of.security_opt ?? []) addSecurityOption(needs, option)
  for (const entry of of.volumes ?? []) {
    if (typeof entry === 'string') {
      const [source = '', target, options = ''] = entry.split(':')
      if (target === undefined) continue // an anonymous volume: a path inside
      addMount(needs, source)
      if (isShared(options)) needs.processOnly.push(`the mount ${entry}`)
    } else if (entry.source && entry.type !== 'tmpfs') {
      addMount(needs, entry.source)
      if (isShared(entry.bind?.propagation ?? '')) needs.processOnly.push(`the mount of ${entry.source}`)
    }
  }
  needs.ports = of.ports?.length ?? 0
  if (of.extends !== undefined) needs.unread.push('it extends another service, which is not read here: give the output of `docker compose config`')
  const variable = ['cap_add', 'pid', 'ipc', 'network_mode', 'devices', 'runtime', 'security_opt'].filter((key) => asUnknown(of, key))
  if (variable.length > 0) needs.unread.push(`${variable.join(', ')}: variables are not filled in here: give the output of \`docker compose config\``)
  return needs
}

/** Everything of a parsed file but the isolation of services. */
function rest(value: unknown): unknown {
  const file = value as { services: Record<string, Record<string, unknown>> }
  const services = Object.entries(file.services).map(([name, one]) => [name, Object.fromEntries(Object.entries(one).filter(([key]) => key !== 'isolation'))])
  return { ...file, services }
}

/**
 * The file's text with each service's `isolation:` set, everything else byte for byte as it was: lines are inserted and replaced, the document is not written anew. A service whose map is
 * written in one line ({…}), is an alias or has no key cannot take a line: an Error that names it. The result is read again, and must differ in nothing else.
 */
export function writeIsolation({ source, document }: Pick<ComposeFile, 'source' | 'document'>, choices: ReadonlyMap<string, Wall>): string {
  const services = document.get('services') as YAMLMap
  const edits: { from: number; to: number; text: string }[] = []
  const newline = source.includes('\r\n') ? '\r\n' : '\n'
  for (const pair of services.items) {
    const name = String(isScalar(pair.key) ? pair.key.value : pair.key)
    const choice = choices.get(name)
    if (!choice) continue
    const map = pair.value
    const byHand = (what: string) => new Error(`${what}: write isolation: ${choice} there by hand`)
    if (!isMap(map) || map.flow === true || map.items.length === 0) throw byHand(`services.${name} is not a block of lines`)
    const there = map.items.find((item) => isScalar(item.key) && item.key.value === 'isolation')
    if (there) {
      const scalar = there.value
      if (!isScalar(scalar) || !scalar.range || scalar.anchor !== undefined || String(scalar.value).includes('$')) throw byHand(`services.${name}.isolation is not a plain word`)
      if (scalar.value === choice) continue
      const [from, to] = scalar.range
      edits.push({ from, to, text: from === to && source[from - 1] === ':' ? ` ${choice}` : choice })
      continue
    }
    // Before the first key: whatever follows, its comments and its nesting stay where they are.
    const first = map.items[0]!.key
    if (!isScalar(first) || !first.range) throw byHand(`services.${name} has a key that is not a plain word`)
    const start = source.lastIndexOf('\n', first.range[0] - 1) + 1
    const indent = source.slice(start, first.range[0])
    if (indent.trim() !== '') throw byHand(`services.${name} does not begin on a line of its own`)
    edits.push({ from: start, to: start, text: `${indent}isolation: ${choice}${newline}` })
  }
  let result = source
  for (const edit of edits.sort((a, b) => b.from - a.from)) result = result.slice(0, edit.from) + edit.text + result.slice(edit.to)
  check(source, result, choices)
  return result
}

function check(before: string, after: string, choices: ReadonlyMap<string, Wall>): void {
  const [was, is] = [parse(before).value, parse(after).value]
  const services = (is as { services: Record<string, { isolation?: unknown }> }).services
  for (const [name, choice] of choices) {
    if (services[name]?.isolation !== choice) throw new Error(`services.${name} could not be given isolation: ${choice}`)
  }
  if (!isDeepStrictEqual(rest(was), rest(is))) throw new Error('writing isolation would change something else')
}
