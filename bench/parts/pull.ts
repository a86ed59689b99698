import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { exec } from '../../test/lib/daemon.js'
import type { Bench } from '../engines.js'
import { table } from '../report.js'
import { interleave } from '../interleave.js'
import type { Part } from './part.js'

/** Megabytes of the image, compressed. */
const size = Number(process.env['PULL_MB'] ?? 100)

/** An image of four layers of the files of this machine; pushed to the loopback registry. */
async function pushBigImage(bench: Bench): Promise<{ reference: string; megabytes: number }> {
  const registry = await bench.registry()
  const scratch = await mkdtemp(join(tmpdir(), 'hull-bench-image-'))
  try {
    const layout = join(scratch, 'big.tar')
    const said = await exec('/usr/bin/python3', [resolve(import.meta.dirname, '../big-image.py'), layout, String(size)], { timeoutMs: 300_000 })
    if (said.code !== 0) throw new Error(said.stderr)
    const copied = await exec('skopeo', ['copy', '--dest-tls-verify=false', `oci-archive:${layout}`, `docker://${registry}/bench/big:1`], { timeoutMs: 300_000 })
    if (copied.code !== 0) throw new Error(copied.stderr)
    return { reference: `${registry}/bench/big:1`, megabytes: Number(said.stdout) }
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

export const pull: Part = async ({ bench, rounds, limitMs }) => {
  const { reference, megabytes } = await pushBigImage(bench)
  const engines = bench.daemons
  const results = await interleave(engines, Math.max(1, Math.floor(rounds / 3)), async (engine) => {
    const ms = await bench.time(engine, ['pull', '-q', ...engine.pullFlags, reference])
    await bench.time(engine, ['rmi', '-f', reference])
    return ms
  }, limitMs)
  return { title: 'Pull', text: `An image of ${megabytes} MB (compressed, 4 layers) from a registry on loopback.\n\n${table({ unit: 'ms', command: 'docker pull -q 127.0.0.1:PORT/bench/big:1', engines, results })}` }
}
