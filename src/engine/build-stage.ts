import type { ImageConfig } from '../image/types.js'

/** Proxies: build arguments that need no ARG, and stay out of history and cache (Dockerfile reference, "Predefined ARGs"). */
const predefined = new Set(['HTTP_PROXY', 'HTTPS_PROXY', 'FTP_PROXY', 'NO_PROXY', 'ALL_PROXY'].flatMap((name) => [name, name.toLowerCase()]))

/** ARG and --build-arg. */
export class BuildArgs {
  /** Declared before the first FROM: for FROM lines, and for stages that declare them again. */
  private readonly global = new Map<string, string | undefined>()
  private stage = new Map<string, string | undefined>()
  private readonly used = new Set<string>()

  constructor(private readonly given: Readonly<Record<string, string | null>>) {}

  /** What the user gave, wherever it is used from. */
  private value(name: string): string | undefined {
    if (!Object.hasOwn(this.given, name)) return undefined
    this.used.add(name)
    return this.given[name] ?? undefined
  }

  declareGlobal(name: string, fallback: string | undefined): void {
    this.global.set(name, this.value(name) ?? fallback)
  }

  declare(name: string, fallback: string | undefined): void {
    this.stage.set(name, this.value(name) ?? fallback ?? this.global.get(name))
  }

  newStage(): void {
    this.stage = new Map()
  }

  globalValue(name: string): string | undefined {
    return this.global.get(name)
  }

  /** In a stage: declared ones and proxies. */
  lookup(name: string): string | undefined {
    return this.stage.get(name) ?? (predefined.has(name) ? this.value(name) : undefined)
  }

  /** For the environment of RUN, 'KEY=VALUE', without those that ENV has said. `shown`: those that count for history and cache. */
  environment(env: readonly string[]): { all: string[]; shown: string[] } {
    const taken = new Set(env.map((entry) => entry.split('=', 1)[0]))
    const shown = [...this.stage].flatMap(([name, value]) => (value === undefined || taken.has(name) ? [] : [`${name}=${value}`])).sort()
    const proxies = [...predefined].flatMap((name) => {
      const value = this.stage.has(name) || taken.has(name) ? undefined : this.value(name)
      return value === undefined ? [] : [`${name}=${value}`]
    })
    return { all: [...proxies, ...shown], shown: shown.filter((entry) => !predefined.has(entry.split('=', 1)[0]!)) }
  }

  /** Given and never declared. */
  unused(): string[] {
    return Object.keys(this.given).filter((name) => !this.used.has(name) && !predefined.has(name)).sort()
  }
}

/** One stage: what it is by now. */
export interface Stage {
  /** '' without AS. */
  name: string
  /** '' : nothing yet (FROM scratch). */
  image: string
  config: ImageConfig
  /** Config changes that came before the first layer of an image on nothing: its history. */
  pending: { created: string; created_by: string; empty_layer: true }[]
  /** A CMD was said in this Dockerfile: an ENTRYPOINT after it does not take it away. */
  saidCmd: boolean
  author: string
  /** From here on nothing comes from the cache: a step had to be done. */
  cacheBroken: boolean
}

/** 'x' of config.Env. */
export function envValue(config: ImageConfig, name: string): string | undefined {
  return config.Env?.find((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1)
}
