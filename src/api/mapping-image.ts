import type { DistributionInfo, HistoryEntry, Image, ImageConfig, ImageSummary, SearchResult } from '../engine/api-types.js'
import { unixSeconds, zeroTime } from './time.js'

const parsedSeconds = (text: string): number => {
  const ms = Date.parse(text)
  return Number.isNaN(ms) ? 0 : Math.floor(ms / 1000)
}

/** A row of GET /images/json. How many containers use the image is counted (`counted`) for the disk usage alone, as in Docker: -1 says that it was not. */
export function imageRow({ image, containers, sharedSize }: ImageSummary, minor: number, counted = false): object {
  const none = minor < 43 && image.repoTags.length === 0 && image.repoDigests.length === 0
  return {
    Id: image.id,
    ParentId: image.parent ?? '',
    RepoTags: none ? ['<none>:<none>'] : image.repoTags,
    RepoDigests: none ? ['<none>@<none>'] : image.repoDigests,
    Created: parsedSeconds(image.created),
    Size: image.size,
    ...(minor < 44 ? { VirtualSize: image.size } : {}),
    SharedSize: sharedSize,
    Labels: image.config.Labels ?? null,
    Containers: counted ? containers : -1,
  }
}

/** An image's config in the shape of a container's, as API versions before 1.50 have it. */
function configJson(config: ImageConfig): object {
  return {
    Hostname: '', Domainname: '', User: config.User ?? '', AttachStdin: false, AttachStdout: false, AttachStderr: false,
    ...(config.ExposedPorts ? { ExposedPorts: config.ExposedPorts } : {}),
    Tty: false, OpenStdin: false, StdinOnce: false,
    Env: config.Env ?? [],
    Cmd: config.Cmd ?? null,
    ...(config.Healthcheck ? { Healthcheck: config.Healthcheck } : {}),
    Image: '',
    Volumes: config.Volumes ?? null,
    WorkingDir: config.WorkingDir ?? '',
    Entrypoint: config.Entrypoint ?? null,
    OnBuild: config.OnBuild ?? null,
    Labels: config.Labels ?? null,
    ...(config.StopSignal ? { StopSignal: config.StopSignal } : {}),
    ...(config.Shell ? { Shell: config.Shell } : {}),
  }
}

/** GET /images/{name}/json. */
export function imageDetails(
  { image, layersDirectories, storageDriver, lastTagged }: { image: Image; layersDirectories: Record<string, string>; storageDriver: string; lastTagged?: Date },
  minor: number,
): object {
  return {
    Id: image.id,
    RepoTags: image.repoTags,
    RepoDigests: image.repoDigests,
    Parent: image.parent ?? '',
    Comment: image.history.at(-1)?.comment ?? '',
    Created: image.created === '' ? (minor < 44 ? zeroTime : undefined) : image.created,
    DockerVersion: '',
    Author: image.author ?? '',
    Config: configJson(image.config),
    Architecture: image.architecture,
    ...(image.variant ? { Variant: image.variant } : {}),
    Os: image.os,
    Size: image.size,
    ...(minor < 44 ? { VirtualSize: image.size } : {}),
    GraphDriver: { Data: layersDirectories, Name: storageDriver },
    RootFS: { Type: 'layers', Layers: image.diffIds },
    Metadata: { LastTagTime: lastTagged ? lastTagged.toISOString() : zeroTime },
  }
}

/** A row of GET /images/{name}/history. */
export const historyRow = (entry: HistoryEntry): object => ({
  Id: entry.id,
  Created: unixSeconds(entry.created),
  CreatedBy: entry.createdBy,
  Tags: entry.tags.length > 0 ? entry.tags : null,
  Size: entry.size,
  Comment: entry.comment,
})

/** GET /distribution/{name}/json. */
export const distributionJson = ({ descriptor, platforms }: DistributionInfo): object => ({ Descriptor: descriptor, Platforms: platforms })

/** A row of GET /images/search. */
export const searchRow = (row: SearchResult): object => ({
  star_count: row.starCount, is_official: row.isOfficial, name: row.name, is_automated: row.isAutomated, description: row.description,
})
