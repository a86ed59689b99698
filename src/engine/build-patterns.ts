import { posix } from 'node:path'
import { setImmediate as immediate } from 'node:timers/promises'
import { badRequest } from '../base/errors.js'

/** One step of a pattern: a character that fits, or one of the wildcards. `dirs` is the start of '**' and a slash: any directories, or none. */
type Token = ((c: string) => boolean) | 'star' | 'stars' | 'dirs'

/**
 * A shell pattern over whole paths by Go's rules (filepath.Match): '*' and '?' stop at '/', [classes] have ranges and '^', a backslash takes the
 * next character as it is. Patterns and names are a stranger's: each token is looked at once for each character, whatever they are.
 */
export function pathPattern(pattern: string, options: { doubleStars?: boolean; orParent?: boolean } = {}): (path: string) => boolean {
  const tokens = parse(pattern, options.doubleStars ?? false)
  const least = tokens.filter((token) => typeof token === 'function').length
  return (path) => {
    const text = Array.from(path)
    const end = text.length
    if (least > end) return false
    // row[j]: the tokens from here on fit what comes at j. From the last token to the first.
    let row = new Uint8Array(end + 1)
    row[end] = 1
    if (options.orParent) for (let j = 1; j < end; j++) if (text[j] === '/') row[j] = 1
    for (let i = tokens.length - 1; i >= 0; i--) {
      const token = tokens[i]!
      const next = new Uint8Array(end + 1)
      if (typeof token === 'function') {
        for (let j = 0; j < end; j++) if (row[j + 1] === 1 && token(text[j]!)) next[j] = 1
      } else {
        let below = false
        for (let j = end; j >= 0; j--) {
          if (token === 'dirs') {
            if (j < end && text[j] === '/' && row[j + 1] === 1) below = true
          } else below = j < end && next[j + 1] === 1 && (token === 'stars' || text[j] !== '/')
          if (below || row[j] === 1) next[j] = 1
        }
      }
      row = next
    }
    return row[0] === 1
  }
}

function parse(pattern: string, doubleStars: boolean): Token[] {
  const wrong = () => badRequest(`syntax error in pattern: ${pattern.slice(0, 200)}`)
  const chars = Array.from(pattern)
  const tokens: Token[] = []
  let i = 0
  const escaped = () => {
    if (chars[i] === '\\') i++
    if (i >= chars.length) throw wrong()
    return chars[i++]!
  }
  while (i < chars.length) {
    if (chars[i] === '*') {
      const first = i
      while (chars[i] === '*') i++
      if (!doubleStars || i - first === 1) tokens.push('star')
      else if (chars[i] === '/') {
        i++
        tokens.push('dirs')
      } else tokens.push('stars')
    } else if (chars[i] === '?') {
      i++
      tokens.push((c) => c !== '/')
    } else if (chars[i] === '[') {
      i++
      const not = chars[i] === '^'
      if (not) i++
      const ranges: [number, number][] = []
      const bound = () => {
        if (chars[i] === '-' || chars[i] === ']') throw wrong()
        return escaped().codePointAt(0)!
      }
      while (chars[i] !== ']' || ranges.length === 0) {
        const low = bound()
        if (chars[i] === '-') {
          i++
          ranges.push([low, bound()])
        } else ranges.push([low, low])
      }
      i++
      tokens.push((c) => ranges.some(([low, high]) => c.codePointAt(0)! >= low && c.codePointAt(0)! <= high) !== not)
    } else {
      const wanted = escaped()
      tokens.push((c) => c === wanted)
    }
  }
  return tokens
}

/** A line of .dockerignore; `except`: it began with '!'. */
export interface IgnorePattern {
  except: boolean
  matches: (path: string) => boolean
}

/** What .dockerignore says (moby, patternmatcher/ignorefile). */
export function ignorePatterns(text: string): IgnorePattern[] {
  return text.replace(/^\ufeff/, '').split('\n').flatMap((line) => {
    if (line.startsWith('#') || line.trim() === '') return []
    const except = line.trim().startsWith('!')
    const path = line.trim().slice(except ? 1 : 0).trim()
    if (path === '') throw badRequest('illegal exclusion pattern: "!"')
    // Below the context, with or without a slash.
    const clean = posix.normalize(path).replace(/(?<=.)\/$/, '').replace(/^\/(?=.)/, '')
    return [{ except, matches: pathPattern(clean, { doubleStars: true, orParent: true }) }]
  })
}

/** The last line that fits a path, or a directory that it is in, decides. */
export async function isIgnored(path: string, patterns: readonly IgnorePattern[]): Promise<boolean> {
  let ignored = false
  for (const { except, matches } of patterns) {
    if (except !== ignored) continue
    await immediate()
    if (matches(path)) ignored = !except
  }
  return ignored
}
