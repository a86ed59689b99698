import { setTimeout } from 'node:timers/promises'
import { native } from './native.js'

/** Milliseconds over which the counter is measured: an error of 0.2 µs at either end is then four millionths. */
const SPAN = 100

/** Frequency of this processor's time stamp counter (rdtsc) by the kernel's CLOCK_MONOTONIC, kHz; undefined where there is none. Takes {@link SPAN}. */
export async function measureTscKhz(): Promise<number | undefined> {
  const first = native.timeStamp()
  if (!first) return undefined
  await setTimeout(SPAN)
  const second = native.timeStamp()!
  return Math.round((Number(second[0] - first[0]) * 1e6) / Number(second[1] - first[1]))
}
