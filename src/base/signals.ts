import { constants } from 'node:os'

const byName: ReadonlyMap<string, number> = new Map(Object.entries(constants.signals))
/** First and last real-time signal that a program may use with glibc and musl (signal(7); the kernel's 32 and 33 belong to libc). */
const RTMIN = 34
const RTMAX = 64

/**
 * The number of a signal as Docker users write it: 'SIGTERM', 'TERM', 'term', '15', 'RTMIN+3', 'SIGRTMAX-1'.
 * `undefined` when there is no such signal (0 is none: it would only probe the process).
 */
export function parseSignal(text: string): number | undefined {
  if (/^\d{1,3}$/.test(text)) {
    const number = Number(text)
    return number >= 1 && number <= RTMAX ? number : undefined
  }
  const name = text.toUpperCase().replace(/^SIG/, '')
  const realTime = /^RT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name)
  if (realTime) {
    const offset = Number(realTime[3] ?? 0) * (realTime[2] === '-' ? -1 : 1)
    const number = (realTime[1] === 'MIN' ? RTMIN : RTMAX) + offset
    return number >= RTMIN && number <= RTMAX ? number : undefined
  }
  return byName.get(`SIG${name}`)
}
