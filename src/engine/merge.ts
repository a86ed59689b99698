import { badRequest } from '../base/errors.js'
import type { ImageConfig } from '../image/types.js'
import type { ContainerConfig, HealthConfig } from './api-types.js'

const key = (line: string): string => line.split('=', 1)[0]!

/** The image's environment below the user's: a variable of the user's hides the image's; `KEY` without '=' removes it. */
function mergeEnv(user: string[], image: string[]): string[] {
  const seen = new Set(user.map(key))
  return [...user.filter((line) => line.includes('=')), ...image.filter((line) => !seen.has(key(line)))]
}

function mergeHealth(user: HealthConfig | null, image: ImageConfig['Healthcheck']): HealthConfig | null {
  if (!image) return user
  const base: HealthConfig = {
    Test: image.Test ?? [],
    Interval: image.Interval ?? 0,
    Timeout: image.Timeout ?? 0,
    StartPeriod: image.StartPeriod ?? 0,
    StartInterval: image.StartInterval ?? 0,
    Retries: image.Retries ?? 0,
  }
  if (!user) return base
  return {
    Test: user.Test.length > 0 ? user.Test : base.Test,
    Interval: user.Interval || base.Interval,
    Timeout: user.Timeout || base.Timeout,
    StartPeriod: user.StartPeriod || base.StartPeriod,
    StartInterval: user.StartInterval || base.StartInterval,
    Retries: user.Retries || base.Retries,
  }
}

/**
 * A container's config from the user's and the image's, as Docker merges them (moby runconfig.Merge): what the user says wins, an entrypoint
 * of the user's hides the image's command. 400 `no command specified` when nothing is left to run.
 */
export function mergeConfig(user: ContainerConfig, image: ImageConfig): ContainerConfig {
  let entrypoint = user.Entrypoint
  let command = user.Cmd
  if (entrypoint === null) {
    if (command === null || command.length === 0) command = image.Cmd ?? null
    entrypoint = image.Entrypoint ?? null
  } else if (entrypoint.length === 1 && entrypoint[0] === '') {
    entrypoint = null
  }
  if ((entrypoint?.length ?? 0) === 0 && (command?.length ?? 0) === 0) throw badRequest('no command specified')
  return {
    ...user,
    User: user.User || (image.User ?? ''),
    ExposedPorts: { ...image.ExposedPorts, ...user.ExposedPorts },
    Env: mergeEnv(user.Env, image.Env ?? []),
    Cmd: command,
    Entrypoint: entrypoint,
    Healthcheck: mergeHealth(user.Healthcheck, image.Healthcheck),
    Labels: { ...image.Labels, ...user.Labels },
    Volumes: { ...image.Volumes, ...user.Volumes },
    WorkingDir: user.WorkingDir || (image.WorkingDir ?? ''),
    StopSignal: user.StopSignal || (image.StopSignal ?? ''),
    Shell: user.Shell.length > 0 ? user.Shell : (image.Shell ?? []),
  }
}
