import { resolve } from 'node:path'
import { exec } from './daemon.js'

/** One step of a terminal session; see terminal.py. */
export type Step = { expect: string } | { send: string } | { control: string } | { resize: [number, number] } | { sleep: number } | { eof: true }

/** What the session showed. */
export interface Session {
  output: string
  code: number | null
  error?: string
}

/** Runs a program on a real pseudo-terminal and plays the steps. */
export async function onTerminal(host: string, command: string[], steps: Step[], size: [number, number] = [24, 80]): Promise<Session> {
  const said = await exec('/usr/bin/python3', [resolve(import.meta.dirname, 'terminal.py'), String(size[0]), String(size[1]), ...command], {
    input: JSON.stringify(steps),
    env: { DOCKER_HOST: host, DOCKER_CLI_HINTS: 'false' },
    timeoutMs: 180_000,
  })
  if (said.code !== 0) throw new Error(`terminal.py: ${said.stderr}`)
  return JSON.parse(said.stdout) as Session
}
