/** Severity, in rising order. */
export type Level = 'debug' | 'info' | 'warn' | 'error'
const order: Record<Level, number> = { debug: 0, info: 1, warn: 2, error: 3 }

let threshold: Level = 'info'

/** Sets the lowest level that is written (default `info`). */
export function setLogLevel(level: Level): void {
  threshold = level
}

function write(level: Level, message: string, fields?: Record<string, unknown>): void {
  if (order[level] < order[threshold]) return
  // One line an event, in logfmt: systemd's journal and people both read it.
  let line = `time=${new Date().toISOString()} level=${level} msg=${JSON.stringify(message)}`
  for (const [key, value] of Object.entries(fields ?? {})) {
    if (value === undefined) continue
    line += ` ${key}=${JSON.stringify(value instanceof Error ? value.message : value)}`
  }
  process.stderr.write(line + '\n')
}

/** The daemon's log: logfmt lines on stderr. */
export const log = {
  debug: (message: string, fields?: Record<string, unknown>) => write('debug', message, fields),
  info: (message: string, fields?: Record<string, unknown>) => write('info', message, fields),
  warn: (message: string, fields?: Record<string, unknown>) => write('warn', message, fields),
  error: (message: string, fields?: Record<string, unknown>) => write('error', message, fields),
}
