import { Histogram } from '../base/metrics.js'

/** Methods that Docker clients use: a label must not be what a client makes up. */
const known = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE'])

/** All requests of this daemon, whichever socket they came in on. */
export const requestDurations = new Histogram(
  'hull_api_request_seconds', 'Time to answer an API request; of a stream, until it ended.', [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60],
)

/** Counts an answered request. `ms`: how long it took. */
export function requestAnswered(method: string, status: number, ms: number): void {
  requestDurations.observe({ method: known.has(method) ? method : 'other', code: String(status) }, ms / 1000)
}
