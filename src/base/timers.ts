/** setTimeout's longest delay, milliseconds: a longer one would fire at once (Node, timers). */
export const LONGEST_TIMER = 2 ** 31 - 1

/** What `promise` gives or throws, or 'timeout' when it takes longer than `ms` milliseconds, of which there may be any number. No timer stays behind. */
export async function within<T>(promise: Promise<T>, ms: number): Promise<T | 'timeout'> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'timeout'>((resolve) => {
    const wait = (left: number): void => {
      timer = setTimeout(() => {
        if (left > LONGEST_TIMER) wait(left - LONGEST_TIMER)
        else resolve('timeout')
      }, Math.min(left, LONGEST_TIMER))
    }
    wait(ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
