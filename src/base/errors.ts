/**
 * An error that a client may see. `statusCode` is the HTTP status of the Docker Engine API
 * (https://docs.docker.com/reference/api/engine/), `message` becomes the body's `{"message": …}`.
 */
export class HullError extends Error {
  constructor(
    readonly statusCode: number,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
    this.name = 'HullError'
  }
}

/** 400: the request cannot be carried out as it is written. */
export const badRequest = (message: string, cause?: unknown) => new HullError(400, message, { cause })
/** 401: the registry refused the credentials. */
export const unauthorized = (message: string, cause?: unknown) => new HullError(401, message, { cause })
/** 403: understood and refused. */
export const forbidden = (message: string, cause?: unknown) => new HullError(403, message, { cause })
/** 404: no such object. */
export const notFound = (message: string, cause?: unknown) => new HullError(404, message, { cause })
/** 409: the object's present state forbids it. */
export const conflict = (message: string, cause?: unknown) => new HullError(409, message, { cause })
/** 500: our fault or the host's. */
export const internal = (message: string, cause?: unknown) => new HullError(500, message, { cause })
/** 501: a Docker endpoint or option that Hull does not have. */
export const notImplemented = (message: string, cause?: unknown) => new HullError(501, message, { cause })

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The `code` of a Node.js or native system error (`ENOENT`, …), if it has one. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string') return error.code
  return undefined
}
