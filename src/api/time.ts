/** Go's zero time: what Docker shows where nothing has happened. */
export const zeroTime = '0001-01-01T00:00:00Z'

/** RFC 3339, or Go's zero time. */
export const timeText = (date: Date | undefined): string => (date ? date.toISOString() : zeroTime)

/** Whole seconds since the epoch. */
export const unixSeconds = (date: Date): number => Math.floor(date.getTime() / 1000)

/** 'About a minute', '3 hours', '2 weeks': how Docker writes a duration (docker/go-units, HumanDuration). `ms` in milliseconds. */
export function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000)
  if (seconds < 1) return 'Less than a second'
  if (seconds === 1) return '1 second'
  if (seconds < 60) return `${seconds} seconds`
  const minutes = Math.floor(seconds / 60)
  if (minutes === 1) return 'About a minute'
  if (minutes < 60) return `${minutes} minutes`
  const hours = Math.floor(seconds / 3600 + 0.5)
  if (hours === 1) return 'About an hour'
  if (hours < 48) return `${hours} hours`
  if (hours < 24 * 14) return `${Math.floor(hours / 24)} days`
  if (hours < 24 * 60) return `${Math.floor(hours / 24 / 7)} weeks`
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`
  return `${Math.floor(hours / 24 / 365)} years`
}
