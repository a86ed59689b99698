import { UsageError } from '../errors.js'

/** One operand or call of an expression. */
export type Expression =
  | { kind: 'literal'; value: unknown }
  | { kind: 'dot' }
  | { kind: 'variable'; name: string }
  | { kind: 'field'; of: Expression; name: string }
  | { kind: 'call'; name: string; args: Expression[] }
  | { kind: 'method'; target: Expression; args: Expression[] }

/** One piece of a template. */
export type Node =
  | { kind: 'text'; text: string }
  | { kind: 'print'; value: Expression }
  | { kind: 'assign'; name: string; value: Expression }
  | { kind: 'if'; condition: Expression; then: Node[]; otherwise: Node[] }
  | { kind: 'with'; value: Expression; then: Node[]; otherwise: Node[] }
  | { kind: 'range'; value: Expression; key: string; item: string; then: Node[]; otherwise: Node[] }

const fail = (message: string) => new UsageError(`template parsing error: template: :1: ${message}`, 64)

type Token = { kind: 'field' | 'variable' | 'word' | 'string' | 'number' | 'symbol'; text: string; spaced: boolean }

function tokens(source: string): Token[] {
  const pattern = /(\s*)(?:(\.[A-Za-z_]\w*)|(\$\w*)|([A-Za-z_]\w*)|("(?:[^"\\]|\\.)*"|`[^`]*`)|(-?\d+(?:\.\d+)?)|(:=|[.|(),=]))/y
  const kinds: Token['kind'][] = ['field', 'variable', 'word', 'string', 'number', 'symbol']
  const result: Token[] = []
  let at = 0
  const end = source.trimEnd().length
  while (at < end) {
    pattern.lastIndex = at
    const match = pattern.exec(source)
    if (!match) throw fail(`unexpected ${JSON.stringify(source.slice(at).trim()[0])} in operand`)
    const index = match.slice(2).findIndex((part) => part !== undefined)
    result.push({ kind: kinds[index]!, text: match[index + 2]!, spaced: match[1] !== '' })
    at = pattern.lastIndex
  }
  return result
}

/** Parser of one action's expression: Go's text/template pipelines. */
class ExpressionParser {
  private at = 0
  constructor(private readonly list: Token[]) {}

  peek(): Token | undefined { return this.list[this.at] }
  next(): Token | undefined { return this.list[this.at++] }
  isSymbol(text: string, ahead = 0): boolean {
    const token = this.list[this.at + ahead]
    return token?.kind === 'symbol' && token.text === text
  }
  variableBefore(symbol: string): string | undefined {
    const token = this.peek()
    if (token?.kind !== 'variable' || !this.isSymbol(symbol, 1)) return undefined
    this.at += 2
    return token.text
  }

  /** command { '|' command }: each result becomes the last argument of the next call. */
  pipeline(): Expression {
    let value = this.command()
    while (this.isSymbol('|')) {
      this.at += 1
      const call = this.command()
      if (call.kind !== 'call' && call.kind !== 'method') throw fail('non executable command in pipeline')
      value = { ...call, args: [...call.args, value] }
    }
    return value
  }

  finish(): void {
    const token = this.peek()
    if (token) throw fail(`unexpected ${JSON.stringify(token.text)} in operand`)
  }

  private command(): Expression {
    const token = this.peek()
    if (token?.kind === 'word' && !['true', 'false', 'nil'].includes(token.text)) {
      this.at += 1
      const args: Expression[] = []
      while (this.peek() && !this.isSymbol('|') && !this.isSymbol(')')) args.push(this.operand())
      return { kind: 'call', name: token.text, args }
    }
    const value = this.operand()
    const args: Expression[] = []
    while (this.peek() && !this.isSymbol('|') && !this.isSymbol(')')) args.push(this.operand())
    return args.length > 0 ? { kind: 'method', target: value, args } : value
  }

  private operand(): Expression {
    const token = this.next()
    if (!token) throw fail('missing value for command')
    let value: Expression
    if (token.kind === 'field') value = { kind: 'field', of: { kind: 'dot' }, name: token.text.slice(1) }
    else if (token.kind === 'variable') value = { kind: 'variable', name: token.text }
    else if (token.kind === 'number') value = { kind: 'literal', value: Number(token.text) }
    else if (token.kind === 'string') value = { kind: 'literal', value: token.text[0] === '`' ? token.text.slice(1, -1) : unquote(token.text) }
    else if (token.kind === 'word') {
      const words: Record<string, unknown> = { true: true, false: false, nil: null }
      value = token.text in words ? { kind: 'literal', value: words[token.text] } : { kind: 'call', name: token.text, args: [] }
    } else if (token.text === '.') value = { kind: 'dot' }
    else if (token.text === '(') {
      value = this.pipeline()
      if (!this.isSymbol(')')) throw fail('unclosed left paren')
      this.at += 1
    } else throw fail(`unexpected ${JSON.stringify(token.text)} in operand`)
    for (;;) {
      const field = this.peek()
      if (field?.kind !== 'field' || field.spaced) return value
      this.at += 1
      value = { kind: 'field', of: value, name: field.text.slice(1) }
    }
  }
}

function unquote(text: string): string {
  const escapes: Record<string, string> = { n: '\n', t: '\t', r: '\r', '"': '"', '\\': '\\', a: '\x07', b: '\b', f: '\f', v: '\v' }
  return text.slice(1, -1).replace(/\\(.)/g, (_whole, c: string) => {
    const value = escapes[c]
    if (value === undefined) throw fail(`invalid syntax: unknown escape \\${c}`)
    return value
  })
}

/** Text and actions, with the white space that `{{-` and `-}}` eat already eaten. */
function pieces(source: string): ({ text: string } | { action: string })[] {
  const result: ({ text: string } | { action: string })[] = []
  const pattern = /\{\{(-\s)?((?:"(?:[^"\\]|\\.)*"|`[^`]*`|(?!\}\})[\s\S])*?)(\s-)?\}\}/y
  let rest = ''
  let trimNext = false
  let at = 0
  const flush = (trimEnd: boolean) => {
    if (trimEnd) rest = rest.trimEnd()
    if (rest) result.push({ text: rest })
    rest = ''
  }
  while (at < source.length) {
    const open = source.indexOf('{{', at)
    let text = source.slice(at, open < 0 ? undefined : open)
    if (trimNext) text = text.trimStart()
    rest += text
    if (open < 0) break
    pattern.lastIndex = open
    const match = pattern.exec(source)
    if (!match) throw fail('unclosed action')
    flush(match[1] !== undefined)
    result.push({ action: match[2]!.trim() })
    trimNext = match[3] !== undefined
    at = pattern.lastIndex
  }
  flush(false)
  return result
}

/** Parses the subset of Go's text/template that the docker CLI's users write: fields, variables, pipelines, functions, if, with, range. */
export function parseTemplate(source: string): Node[] {
  type Block = { node: Extract<Node, { then: Node[] }>; chained: boolean; target: Node[]; inElse: boolean }
  const root: Node[] = []
  const stack: Block[] = []
  let target = root
  const open = (node: Extract<Node, { then: Node[] }>, chained: boolean) => {
    target.push(node)
    stack.push({ node, chained, target, inElse: false })
    target = node.then
  }
  for (const piece of pieces(source)) {
    if ('text' in piece) {
      target.push({ kind: 'text', text: piece.text })
      continue
    }
    let action = piece.action
    if (action.startsWith('/*')) continue
    if (action === '') throw fail('missing value for command')
    const keyword = /^(if|with|range|else|end)\b/.exec(action)?.[1]
    if (keyword === 'end') {
      let block = stack.pop()
      if (!block || action !== 'end') throw fail('unexpected {{end}}')
      while (block.chained) block = stack.pop()!
      target = block.target
      continue
    }
    let chained = false
    if (keyword === 'else') {
      const block = stack.at(-1)
      if (!block || block.inElse) throw fail('unexpected {{else}}')
      block.inElse = true
      target = block.node.otherwise
      action = action.slice(4).trim()
      if (action === '') continue
      if (!action.startsWith('if')) throw fail('unexpected <else> in input')
      chained = true
    }
    const head = chained ? 'if' : keyword
    const parser = new ExpressionParser(tokens(head ? action.slice(head.length) : action))
    if (head === 'range') {
      const first = parser.variableBefore(',')
      const second = parser.variableBefore(':=')
      if (first && !second) throw fail('range can only initialize variables')
      const value = parser.pipeline()
      parser.finish()
      open({ kind: 'range', value, key: first ?? '', item: second ?? '', then: [], otherwise: [] }, false)
      continue
    }
    const assigned = parser.variableBefore(':=') ?? parser.variableBefore('=')
    const value = parser.pipeline()
    parser.finish()
    if (head === 'if') open({ kind: 'if', condition: value, then: [], otherwise: [] }, chained)
    else if (head === 'with') open({ kind: 'with', value, then: [], otherwise: [] }, false)
    else if (assigned) target.push({ kind: 'assign', name: assigned, value })
    else target.push({ kind: 'print', value })
  }
  if (stack.length > 0) throw fail('unexpected EOF')
  return root
}
