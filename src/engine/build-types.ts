import type { ProgressMessage, RegistryAuth } from '../image/types.js'
import type { CreateContainerRequest } from './api-types.js'
import { HullError } from '../base/errors.js'

/** POST /build, the classic builder. */
export interface BuildRequest {
  /** Path of the Dockerfile in the context. */
  dockerfile: string
  /** Names for the result, as the user wrote them. */
  tags: string[]
  buildArgs: Record<string, string | null>
  labels: Record<string, string>
  target: string
  platform: string
  noCache: boolean
  /** Look for newer versions of base images. */
  pull: boolean
  /** Keep the containers of successful steps. */
  keep: boolean
  /** Nothing but the ID is said. */
  quiet: boolean
  /** What containers of steps have in common: limits, network, isolation, hosts. */
  container: CreateContainerRequest
  /** By registry: X-Registry-Config. */
  auth: (domain: string) => RegistryAuth | undefined
  /** Said at the start: what was asked for and is not done. */
  warnings: string[]
  onProgress: (message: ProgressMessage) => void
  signal: AbortSignal
}

/** A command of a RUN step that failed; the stream's errorDetail has its exit code. */
export class StepError extends HullError {
  constructor(message: string, readonly code: number) {
    super(500, message)
    this.name = 'StepError'
  }
}
