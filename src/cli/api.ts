/** What `hull` reads of the Engine API's answers (https://docs.docker.com/reference/api/engine/version/v1.47/). */

/** One port in a row of GET /containers/json. */
export interface PortRow { IP?: string; PrivatePort: number; PublicPort?: number; Type: string }

/** A row of GET /containers/json. */
export interface ContainerRow {
  Id: string
  Names: string[] | null
  Image: string
  ImageID: string
  Command: string
  /** seconds since the epoch */
  Created: number
  State: string
  Status: string
  Ports: PortRow[] | null
  Labels: Record<string, string> | null
  SizeRw?: number
  SizeRootFs?: number
  NetworkSettings?: { Networks?: Record<string, unknown> | null }
  Mounts?: { Name?: string; Source?: string; Driver?: string }[] | null
  HostConfig?: { NetworkMode?: string; Annotations?: Record<string, string> }
}

/** What the CLI needs of GET /containers/{id}/json. */
export interface ContainerDetails {
  Id: string
  Name: string
  State: { Running: boolean; Paused: boolean; Restarting: boolean; ExitCode: number; Status: string }
  Config: { Tty: boolean; OpenStdin: boolean }
  HostConfig: { AutoRemove?: boolean; LogConfig?: { Type: string } }
  NetworkSettings: { Ports?: Record<string, { HostIp: string; HostPort: string }[] | null> | null }
}

/** A row of GET /images/json. */
export interface ImageRow {
  Id: string
  RepoTags: string[] | null
  RepoDigests: string[] | null
  /** seconds since the epoch */
  Created: number
  /** bytes */
  Size: number
  SharedSize: number
  Containers: number
}
