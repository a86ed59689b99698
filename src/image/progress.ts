import type { ProgressMessage } from './types.js'

const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB', 'ZB', 'YB']

/** '7.25MB': decimal units, four significant digits, as Docker writes sizes (docker/go-units HumanSize). */
export function humanSize(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${String(Number(value.toPrecision(4)))}${units[unit]}`
}

/** The bar that Docker puts in `progress`, for clients that draw none of their own (moby jsonmessage, JSONProgress.String, 200 columns). */
export function progressBar(current: number, total: number): string {
  if (total <= 0) return humanSize(current).padStart(8)
  const filled = Math.min(50, Math.floor(Math.floor((current / total) * 100) / 2))
  const box = `[${'='.repeat(filled)}>${' '.repeat(50 - filled)}] `
  return current > total ? `${box}${humanSize(current).padStart(8)}` : `${box}${humanSize(current).padStart(8)}/${humanSize(total)}`
}

/** A message with a bar. */
export function barMessage(id: string, status: string, current: number, total: number): ProgressMessage {
  return { status, progressDetail: { current, total }, progress: progressBar(current, total), id }
}

/** A message about one layer, without figures. */
export function layerMessage(id: string, status: string): ProgressMessage {
  return { status, progressDetail: {}, id }
}

/** Lets a message of a kind through at most every `intervalMs`; what says "done" must not go through here. */
export class Throttle {
  private last = 0
  constructor(private readonly intervalMs = 100) {}
  ready(): boolean {
    const now = performance.now()
    if (now - this.last < this.intervalMs) return false
    this.last = now
    return true
  }
}
