import { spawn } from 'node:child_process'
import { existsSync, openSync, closeSync } from 'node:fs'
import type { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { messageOf } from '../base/errors.js'
import { run } from '../base/run.js'
import { Client } from './client.js'

const LOG = '/var/log/hull.log'
/** How long a daemon may take until it answers, in ms. */
const PATIENCE_MS = 10_000

const sleep = (ms: number) => new Promise((resolve) => { setTimeout(resolve, ms) })

/** True when systemd runs this machine and knows hull.service: then it is systemd that must start it. */
function hasUnit(): boolean {
  return existsSync('/run/systemd/system') && ['/etc/systemd/system/hull.service', '/usr/local/lib/systemd/system/hull.service', '/usr/lib/systemd/system/hull.service'].some((path) => existsSync(path))
}

/**
 * Starts the daemon for the default socket when nobody listens there, and waits until it answers. False when that is not ours to do (not root)
 * or did not work; why is said on `stderr`.
 */
export async function startDaemon(host: string, stderr: Writable): Promise<boolean> {
  if (process.getuid?.() !== 0) {
    stderr.write('hull: the daemon is not running; start it as root with `hull daemon`, or run hull as root once\n')
    return false
  }
  let failed = ''
  if (hasUnit()) {
    stderr.write('hull: the daemon is not running: starting hull.service\n')
    const result = await run('systemctl', ['start', 'hull.service'])
    if (result.code !== 0) failed = result.stderr.trim()
  } else {
    stderr.write(`hull: the daemon is not running: starting it (log: ${LOG})\n`)
    try {
      const log = openSync(LOG, 'a', 0o640)
      const script = fileURLToPath(new URL('../../bin/hull', import.meta.url))
      const child = spawn(process.execPath, [script, 'daemon'], { detached: true, cwd: '/', stdio: ['ignore', log, log] })
      closeSync(log)
      child.on('error', (error) => { failed = messageOf(error) })
      child.on('exit', (code, signal) => { failed = `it ended at once (${signal ?? `exit code ${code}`})` })
      child.unref()
    } catch (error) {
      failed = messageOf(error)
    }
  }
  const client = new Client(host)
  const deadline = Date.now() + PATIENCE_MS
  for (;;) {
    if (await client.ping()) return true
    // Another `hull` may have been faster: then our daemon ends and the other's answers, so an exit alone is no verdict.
    if (Date.now() > deadline || (failed !== '' && !(await answersSoon(client)))) {
      stderr.write(`hull: the daemon did not start${failed ? `: ${failed}` : ` within ${PATIENCE_MS / 1000} s`}; see ${LOG}\n`)
      return false
    }
    await sleep(20)
  }
}

async function answersSoon(client: Client): Promise<boolean> {
  for (let i = 0; i < 10; i += 1) {
    if (await client.ping()) return true
    await sleep(100)
  }
  return false
}
