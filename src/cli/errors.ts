/** A failure that ends a command: `message` goes to stderr as it is, the process exits with `exitCode`. */
export class CliError extends Error {
  constructor(
    message: string,
    readonly exitCode = 1,
    options?: ErrorOptions,
  ) {
    super(message, options)
    this.name = 'CliError'
  }
}

/** The daemon answered with an error. Printed in the docker CLI's words: `Error response from daemon: …`. */
export class ApiError extends CliError {
  constructor(
    readonly statusCode: number,
    readonly daemonMessage: string,
  ) {
    super(`Error response from daemon: ${daemonMessage}`)
    this.name = 'ApiError'
  }
}

/** No daemon listens on the socket (ENOENT, ECONNREFUSED) or it may not be used (EACCES). */
export class ConnectError extends CliError {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message)
    this.name = 'ConnectError'
  }
}

/** A command line that cannot be understood: the docker CLI exits with 125 for a wrong flag and 1 for a wrong argument. */
export class UsageError extends CliError {
  constructor(message: string, exitCode = 125) {
    super(message, exitCode)
    this.name = 'UsageError'
  }
}
