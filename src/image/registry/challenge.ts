/** One challenge of a WWW-Authenticate header (RFC 9110, 11.6.1). */
export interface Challenge {
  /** Lower case: 'bearer', 'basic'. */
  scheme: string
  parameters: Record<string, string>
}

const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y
const space = /[ \t]*/y

function take(pattern: RegExp, text: string, at: number): string {
  pattern.lastIndex = at
  return pattern.exec(text)?.[0] ?? ''
}

/** `"…"` at `at` with its escapes undone; its raw length. Undefined when it does not end. */
function quoted(text: string, at: number): { value: string; length: number } | undefined {
  let value = ''
  for (let i = at + 1; i < text.length; i++) {
    if (text[i] === '"') return { value, length: i + 1 - at }
    if (text[i] === '\\' && i + 1 < text.length) i++
    value += text[i]
  }
  return undefined
}

/**
 * Parses a WWW-Authenticate value; several challenges may stand in one. What comes after something malformed is ignored, as
 * is a header longer than 16 KiB.
 */
export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = []
  if (header.length > 16384) return challenges
  let at = 0
  let current: Challenge | undefined
  while (at < header.length) {
    at += take(space, header, at).length
    if (header[at] === ',') {
      at++
      continue
    }
    const word = take(token, header, at)
    if (word === '') return challenges
    at += word.length
    const gap = take(space, header, at).length
    if (header[at + gap] === '=' && current !== undefined) {
      at += gap + 1
      at += take(space, header, at).length
      if (header[at] === '"') {
        const string = quoted(header, at)
        if (string === undefined) return challenges
        current.parameters[`${word.toLowerCase()}`] = string.value
        at += string.length
      } else {
        const value = take(token, header, at)
        if (value === '') return challenges
        current.parameters[word.toLowerCase()] = value
        at += value.length
      }
    } else {
      current = { scheme: word.toLowerCase(), parameters: Object.create(null) as Record<string, string> }
      challenges.push(current)
      at += gap
    }
  }
  return challenges
}
