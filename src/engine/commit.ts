import { applyChange } from '../image/changes.js'
import type { ImageConfig, ImageService } from '../image/types.js'
import type { CommitRequest, ContainerConfig } from './api-types.js'
import type { Container } from './container.js'
import type { Lifecycle } from './lifecycle.js'
import { commandOf } from './spec.js'

/** The part of a container's configuration that an image keeps. */
function imageConfigOf(config: ContainerConfig): ImageConfig {
  const health = config.Healthcheck
  return {
    ...(config.User ? { User: config.User } : {}),
    ...(Object.keys(config.ExposedPorts).length > 0 ? { ExposedPorts: config.ExposedPorts } : {}),
    ...(config.Env.length > 0 ? { Env: config.Env } : {}),
    ...(config.Entrypoint ? { Entrypoint: config.Entrypoint } : {}),
    ...(config.Cmd ? { Cmd: config.Cmd } : {}),
    ...(Object.keys(config.Volumes).length > 0 ? { Volumes: config.Volumes } : {}),
    ...(config.WorkingDir ? { WorkingDir: config.WorkingDir } : {}),
    ...(Object.keys(config.Labels).length > 0 ? { Labels: config.Labels } : {}),
    ...(config.StopSignal ? { StopSignal: config.StopSignal } : {}),
    ...(config.Shell.length > 0 ? { Shell: config.Shell } : {}),
    ...(health && health.Test.length > 0 ? { Healthcheck: health } : {}),
    ...(config.OnBuild.length > 0 ? { OnBuild: config.OnBuild } : {}),
  }
}

/** Applies `--change` lines; as in a Dockerfile, an ENTRYPOINT that comes before any CMD takes the old CMD away. */
export function changedConfig(config: ImageConfig, changes: readonly string[]): ImageConfig {
  let commandSaid = false
  for (const line of changes) {
    applyChange(config, line)
    const instruction = /^\s*(\S+)/.exec(line)?.[1]?.toUpperCase()
    if (instruction === 'CMD') commandSaid = true
    if (instruction === 'ENTRYPOINT' && !commandSaid) delete config.Cmd
  }
  return config
}

/** `docker commit`. 400 for a change that is none; nothing is read before all of the request is known to be good. */
export async function commitImage(lifecycle: Lifecycle, images: ImageService, container: Container, request: CommitRequest): Promise<{ id: string }> {
  const { record } = container
  const config = changedConfig(imageConfigOf(structuredClone(record.config)), request.changes)
  const job = await lifecycle.openFiles(container, { op: 'layer', freeze: request.pause && record.state.status === 'running' })
  try {
    const { id } = await images.commit(job.output, {
      parent: record.imageId, config, author: request.author, comment: request.comment, createdBy: commandOf(record).join(' '), repo: request.repo, tag: request.tag,
    })
    await job.done
    const reference = request.repo ? `${request.repo}:${request.tag || 'latest'}` : ''
    lifecycle.announce(container, 'commit', { comment: request.comment, imageID: id, imageRef: reference })
    return { id }
  } finally {
    job.cancel()
  }
}
