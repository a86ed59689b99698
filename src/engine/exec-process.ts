import type { ProcessSpec } from '../sandbox/types.js'
import type { CreateExecRequest } from './api-types.js'
import type { ContainerRecord } from './store.js'

/** A session's environment: the container's, without what it sets itself. */
function mergedEnv(base: readonly string[], own: readonly string[]): string[] {
  const names = new Set(own.map((line) => line.split('=', 1)[0]))
  return [...base.filter((line) => !names.has(line.split('=', 1)[0])), ...own]
}

/** What an exec session or a health check runs: the container's environment, directory and user where it says nothing itself. */
export function execProcess(
  record: Pick<ContainerRecord, 'id' | 'config' | 'hostConfig'>,
  request: Pick<CreateExecRequest, 'cmd' | 'env' | 'tty' | 'privileged' | 'user' | 'workingDir' | 'consoleSize'>,
  consoleSize = request.consoleSize,
): ProcessSpec {
  const { config, hostConfig } = record
  const path = config.Env.some((line) => line.startsWith('PATH=')) ? [] : ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']
  const base = [...path, `HOSTNAME=${config.Hostname || record.id.slice(0, 12)}`, ...(request.tty ? ['TERM=xterm'] : []), ...config.Env]
  return {
    args: request.cmd,
    env: mergedEnv(base, request.env),
    cwd: request.workingDir || config.WorkingDir || '/',
    user: request.user || config.User,
    groupAdd: hostConfig.GroupAdd,
    tty: request.tty,
    ...(consoleSize ? { consoleSize } : {}),
    privileged: request.privileged || hostConfig.Privileged,
  }
}
