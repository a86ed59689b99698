import type { Client } from '../cli/client.js'
import type { Instances } from './instances.js'
import type { Comparison, IsolationName } from './types.js'

/** An isolation that this daemon has. */
export interface Way {
  name: IsolationName
  title: string
  /** Flags of `docker run` that choose it. */
  flags: string[]
  /** The same as parts of a create request's HostConfig. */
  hostConfig: Record<string, unknown>
}

/** What a section of a comparison may use. */
export interface CompareContext {
  client: Client
  /** Creates containers that are sure to go. */
  instances: Instances
  image: string
  workload: Comparison['workload']
  ways: readonly Way[]
  /** Names a way in a command line that repeats a row. */
  commandOf: (way: Way, words?: string) => string
  signal: AbortSignal
  /** performance.now() after which no further round begins. */
  deadline: number
  /** Instances that the section `density` starts at most. */
  density: number
  /** Image of the tools that section `perf` measures with; '': ours. */
  probe: string
  /** What is being done, for a person who waits. */
  progress: (text: string) => void
}

/** Without the VM that boots, where there is one that comes from a template: when it runs it is the same machine. */
export const differentWhenRunning = (ways: readonly Way[]): Way[] => ways.filter(({ name }) => name !== 'vm-cold' || !ways.some((way) => way.name === 'vm'))
