import { spawn } from 'node:child_process'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { exec } from '../../lib/daemon.js'
import type { Target } from '../dockerode/index.js'

// Debian's python3-docker belongs to Debian's Python, whatever other one comes first on PATH.
const python = '/usr/bin/python3'
const main = join(resolve(import.meta.dirname, '../docker-py'), 'main.py')

interface Result {
  name: string
  error: string | null
}

/** Names of docker-py's checks, in the order in which they run. */
export async function pythonChecks(): Promise<string[]> {
  const said = await exec(python, ['-B', main, '--list'])
  if (said.code !== 0) throw new Error(`docker-py's checks cannot be listed (is python3-docker installed?): ${said.stderr}`)
  return JSON.parse(said.stdout) as string[]
}

/** One run of all of docker-py's checks: a process that tells each result when it is there. */
export class PythonRun {
  readonly #results = new Map<string, Result>()
  #wake: () => void = () => {}
  #ended: string | undefined
  readonly #kill: () => void

  constructor(target: Target, pattern = '') {
    const env = { ...process.env, DOCKER_HOST: `unix://${target.socket}`, CONFORMANCE_REGISTRY: target.registry, CONFORMANCE_REMOTE: target.remote, PYTHONUNBUFFERED: '1' }
    const child = spawn(python, ['-B', main, pattern], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let errors = ''
    child.stderr.on('data', (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-4000)))
    createInterface({ input: child.stdout }).on('line', (line) => {
      const result = JSON.parse(line) as Result
      this.#results.set(result.name, result)
      this.#wake()
    })
    child.once('close', (code) => {
      this.#ended = `the checks ended with code ${code}: ${errors}`
      this.#wake()
    })
    this.#kill = () => child.kill('SIGKILL')
  }

  /** Waits for a check's result; throws what it threw. */
  async result(name: string): Promise<void> {
    for (;;) {
      const result = this.#results.get(name)
      if (result?.error) throw new Error(`${name}: ${result.error}`) // its name here as well: of a long run often only this line is seen
      if (result) return
      if (this.#ended !== undefined) throw new Error(this.#ended)
      await new Promise<void>((done) => (this.#wake = done))
    }
  }

  end(): void {
    this.#kill()
  }
}
