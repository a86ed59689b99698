import { CliError, UsageError } from '../errors.js'
import { parseTemplate, type Expression, type Node } from './parse.js'

/** The template is well-formed, but not for this object: exit code 1, where a template that cannot be parsed is a UsageError with 64. */
const fail = (message: string) => new CliError(`template: :1: executing "" ${message}`)

type Scope = { dot: unknown; variables: Map<string, unknown> }

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Go's idea of an empty value: false, 0, nil, an empty string, list or map. */
function truth(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0
  if (isRecord(value)) return Object.keys(value).length > 0
  return Boolean(value)
}

/** What Go's fmt prints with %v. */
export function printed(value: unknown): string {
  if (value === null || value === undefined) return '<no value>'
  if (Array.isArray(value)) return `[${value.map((item) => (item == null ? '<nil>' : printed(item))).join(' ')}]`
  if (isRecord(value)) {
    return `map[${Object.keys(value).sort().map((key) => `${key}:${value[key] == null ? '<nil>' : printed(value[key])}`).join(' ')}]`
  }
  return String(value)
}

function text(value: unknown): string {
  return value === null || value === undefined ? '' : typeof value === 'string' ? value : printed(value)
}

function list(value: unknown, name: string): unknown[] {
  if (value === null || value === undefined) return []
  if (!Array.isArray(value)) throw fail(`error calling ${name}: not a list`)
  return value
}

/** JSON as Go writes it by default: <, > and & escaped only by Docker's encoder when asked; Docker switches that off. */
function json(value: unknown): string {
  return JSON.stringify(value ?? null)
}

function compare(a: unknown, b: unknown): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b
  const left = text(a)
  const right = text(b)
  return left < right ? -1 : left > right ? 1 : 0
}

/** Go's Printf with the verbs that templates use: %s %v %d %q %t %x %f, flags - and 0, width and precision. */
function format(args: unknown[]): string {
  let next = 1
  return text(args[0]).replace(/%([-0]*)(\d+)?(?:\.(\d+))?([svdqtxf%])/g, (_whole, flags: string, wide?: string, precision?: string, verb?: string) => {
    if (verb === '%') return '%'
    const value = args[next++]
    let out: string
    if (verb === 'q') out = JSON.stringify(text(value))
    else if (verb === 'd') out = String(Math.trunc(Number(value)))
    else if (verb === 'x') out = typeof value === 'number' ? value.toString(16) : Buffer.from(text(value)).toString('hex')
    else if (verb === 'f') out = Number(value).toFixed(precision === undefined ? 6 : Number(precision))
    else out = precision === undefined ? printed(value) : printed(value).slice(0, Number(precision))
    if (!wide) return out
    return flags.includes('-') ? out.padEnd(Number(wide)) : out.padStart(Number(wide), flags.includes('0') ? '0' : ' ')
  })
}

const functions: Record<string, (...args: unknown[]) => unknown> = {
  json,
  lower: (s) => text(s).toLowerCase(),
  upper: (s) => text(s).toUpperCase(),
  title: (s) => text(s).replace(/\b[a-z]/g, (c) => c.toUpperCase()),
  join: (items, separator) => list(items, 'join').map(text).join(text(separator)),
  split: (s, separator) => text(s).split(text(separator)),
  truncate: (s, length) => [...text(s)].slice(0, Number(length)).join(''),
  pad: (s, before, after) => (text(s) === '' ? '' : ' '.repeat(Number(before)) + text(s) + ' '.repeat(Number(after))),
  println: (...args) => args.map(printed).join(' ') + '\n',
  print: (...args) => args.map(printed).join(''),
  printf: (...args) => format(args),
  len: (value) => (typeof value === 'string' ? Buffer.byteLength(value) : Array.isArray(value) ? value.length : isRecord(value) ? Object.keys(value).length : 0),
  index: (value, ...keys) => keys.reduce((at: unknown, key) => {
    if (Array.isArray(at)) {
      if (typeof key !== 'number' || key < 0 || key >= at.length) throw fail(`error calling index: index out of range: ${printed(key)}`)
      return (at as unknown[])[key]
    }
    if (at === null || at === undefined) return ''
    if (!isRecord(at)) throw fail('error calling index: can\'t index item of this type')
    return Object.hasOwn(at, text(key)) ? at[text(key)] : ''
  }, value),
  slice: (value, from, to) => (Array.isArray(value) ? value : text(value)).slice(Number(from ?? 0), to === undefined ? undefined : Number(to)),
  eq: (a, ...others) => others.some((b) => compare(a, b) === 0),
  ne: (a, b) => compare(a, b) !== 0,
  lt: (a, b) => compare(a, b) < 0,
  le: (a, b) => compare(a, b) <= 0,
  gt: (a, b) => compare(a, b) > 0,
  ge: (a, b) => compare(a, b) >= 0,
  not: (value) => !truth(value),
}

/** `and` and `or`: the first argument that decides (which may be null), else the last. Those after it are not evaluated, as since Go 1.18. */
function decided(args: readonly Expression[], by: boolean, scope: Scope): unknown {
  let value: unknown
  for (const argument of args) {
    value = evaluate(argument, scope)
    if (truth(value) === by) break
  }
  return value
}

function evaluate(expression: Expression, scope: Scope): unknown {
  switch (expression.kind) {
    case 'literal': return expression.value
    case 'dot': return scope.dot
    case 'variable':
      if (!scope.variables.has(expression.name)) throw fail(`undefined variable "${expression.name}"`)
      return scope.variables.get(expression.name)
    case 'field': {
      const of = evaluate(expression.of, scope)
      if (of === null || of === undefined) throw fail(`at <.${expression.name}>: nil pointer evaluating .${expression.name}`)
      if (!isRecord(of) || !Object.hasOwn(of, expression.name)) throw fail(`at <.${expression.name}>: map has no entry for key "${expression.name}"`)
      return of[expression.name]
    }
    case 'method': {
      const method = evaluate(expression.target, scope)
      if (typeof method !== 'function') throw fail('can\'t give argument to non-function')
      return (method as (...args: unknown[]) => unknown)(...expression.args.map((argument) => evaluate(argument, scope)))
    }
    case 'call': {
      if (expression.name === 'and' || expression.name === 'or') return decided(expression.args, expression.name === 'or', scope)
      const call = Object.hasOwn(functions, expression.name) ? functions[expression.name] : undefined
      if (!call) throw new UsageError(`template parsing error: template: :1: function "${expression.name}" not defined`, 64)
      return call(...expression.args.map((argument) => evaluate(argument, scope)))
    }
  }
}

function render(nodes: readonly Node[], scope: Scope): string {
  let out = ''
  const inner = (body: Node[], dot: unknown, more: [string, unknown][] = []) => {
    const variables = new Map(scope.variables)
    for (const [name, value] of more) if (name) variables.set(name, value)
    return render(body, { dot, variables })
  }
  for (const node of nodes) {
    switch (node.kind) {
      case 'text': out += node.text; break
      case 'print': out += printed(evaluate(node.value, scope)); break
      case 'assign': scope.variables.set(node.name, evaluate(node.value, scope)); break
      case 'if': out += inner(truth(evaluate(node.condition, scope)) ? node.then : node.otherwise, scope.dot); break
      case 'with': {
        const value = evaluate(node.value, scope)
        out += truth(value) ? inner(node.then, value) : inner(node.otherwise, scope.dot)
        break
      }
      case 'range': {
        const value = evaluate(node.value, scope)
        const entries: [unknown, unknown][] = Array.isArray(value)
          ? value.map((item, i) => [i, item])
          : isRecord(value) ? Object.keys(value).sort().map((key) => [key, value[key]]) : []
        if (entries.length === 0) out += inner(node.otherwise, scope.dot)
        for (const [key, item] of entries) out += inner(node.then, item, [[node.key, key], [node.item, item]])
      }
    }
  }
  return out
}

/** A parsed template: call it with the value of `.`. Throws CliError in the words of Go's text/template. */
export function compileTemplate(source: string): (dot: unknown) => string {
  const nodes = parseTemplate(source)
  return (dot) => render(nodes, { dot, variables: new Map([['$', dot]]) })
}
