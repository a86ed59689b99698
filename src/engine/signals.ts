import { constants } from 'node:os'
import { badRequest } from '../base/errors.js'

const byName = new Map<string, number>(Object.entries(constants.signals))
byName.set('SIGCLD', 17)
const realtimeMin = 34
const realtimeMax = 64

/** 'SIGTERM', 'term', '15', 'RTMIN+3' → number (signal(7) on x86-64). 400 `Invalid signal: x` otherwise. */
export function parseSignal(text: string): number {
  if (/^\d+$/.test(text)) {
    const number = Number(text)
    if (number >= 1 && number <= realtimeMax) return number
    throw badRequest(`Invalid signal: ${text}`)
  }
  const name = text.toUpperCase().replace(/^(SIG)?/, 'SIG')
  const known = byName.get(name)
  if (known !== undefined) return known
  const realtime = /^SIGRTM(IN|AX)(?:([+-])(\d+))?$/.exec(name)
  if (realtime) {
    const base = realtime[1] === 'IN' ? realtimeMin : realtimeMax
    const number = base + Number(realtime[3] ?? 0) * (realtime[2] === '-' ? -1 : 1)
    if (number >= realtimeMin && number <= realtimeMax) return number
  }
  throw badRequest(`Invalid signal: ${text}`)
}

export const SIGKILL = 9
export const SIGTERM = 15
