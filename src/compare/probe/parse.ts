import { z } from 'zod'

/** What tools say comes out of a guest, in any bytes: a figure is taken from where it stands alone, in bounds, and from nowhere else. */

const MOST = 1e15

function numberIn(tool: string, text: string, pattern: RegExp): number {
  const found = [...text.matchAll(pattern)]
  const value = Number(found[0]?.[1])
  if (found.length !== 1 || !(value > 0) || value > MOST) throw new Error(`what ${tool} said cannot be understood`)
  return value
}

function parsed<T extends z.ZodType>(tool: string, schema: T, text: string): z.output<T> {
  let value: unknown
  try {
    // Tools warn before they begin.
    value = JSON.parse(text.slice(Math.max(0, text.search(/^\{/m))))
  } catch {
    throw new Error(`what ${tool} said cannot be understood`)
  }
  const result = schema.safeParse(value)
  if (!result.success) throw new Error(`what ${tool} said cannot be understood: ${result.error.issues[0]?.path.join('.') ?? ''}`)
  return result.data
}

/** Events a second of `sysbench cpu`. */
export const sysbenchCpu = (text: string): number => numberIn('sysbench', text, /^ {4}events per second: +(\d{1,12}\.\d\d)$/gm)

/** 10^6 bytes a second of `sysbench memory`, which says MiB. */
export const sysbenchMemory = (text: string): number => (numberIn('sysbench', text, /^\d{1,12}\.\d\d MiB transferred \((\d{1,12}\.\d\d) MiB\/sec\)$/gm) * 2 ** 20) / 1e6

/** Operations a second of `perf bench`. */
export const perfBench = (text: string): number => numberIn('perf', text, /^ +(\d{1,12}) ops\/sec$/gm)

/** µs of `qperf -uu … tcp_lat`, which says ns: half of the way there and back. */
export const qperfLatency = (text: string): number => numberIn('qperf', text, /^ {4}latency {2}= +(\d{1,12}(?:\.\d+)?) ns$/gm) / 1000

/** Answers a second that wrk got. Rejects what is no success. */
export function wrkRequests(text: string): number {
  if (/^ *(Socket errors|Non-2xx)/m.test(text)) throw new Error('wrk got errors for answers')
  return numberIn('wrk', text, /^Requests\/sec: +(\d{1,12}\.\d\d)$/gm)
}

const rate = z.number().positive().max(MOST)
const iperf = z.looseObject({ end: z.looseObject({ sum_received: z.looseObject({ bits_per_second: rate }) }) })

/** 10^6 bits a second that arrived, of `iperf3 --json`. */
export const iperfReceived = (text: string): number => parsed('iperf3', iperf, text).end.sum_received.bits_per_second / 1e6

const direction = z.looseObject({ bw_bytes: z.number().min(0).max(MOST), iops: z.number().min(0).max(MOST) })
const job = z.looseObject({ jobname: z.string(), error: z.literal(0), read: direction, write: direction, sync: z.looseObject({ lat_ns: z.looseObject({ percentile: z.looseObject({ '50.000000': rate }).optional() }) }) })
const fio = z.looseObject({ jobs: z.array(job).max(16) })

/** What the jobs of `fio --output-format=json` came to, by name: 10^6 bytes and operations a second, and the median of fsync in µs (0 without any). */
export function fioJobs(text: string): Map<string, { megabytes: number; operations: number; fsync: number }> {
  return new Map(parsed('fio', fio, text).jobs.map(({ jobname, read, write, sync }) => [
    jobname, { megabytes: (read.bw_bytes + write.bw_bytes) / 1e6, operations: read.iops + write.iops, fsync: (sync.lat_ns.percentile?.['50.000000'] ?? 0) / 1000 },
  ]))
}
