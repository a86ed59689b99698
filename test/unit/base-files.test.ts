import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { sweepTemporaries, writeFileAtomic } from '../../src/base/files.js'

it('what a killed writer left is swept, and nothing else', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hull-files-'))
  try {
    await writeFileAtomic(join(directory, 'record.json'), '{}')
    for (const name of ['record.json.0123456789ab.tmp', 'other.tmp', 'x.0123456789AB.tmp', '0123456789ab']) await writeFile(join(directory, name), '')
    await sweepTemporaries(directory)
    expect((await readdir(directory)).sort()).toEqual(['0123456789ab', 'other.tmp', 'record.json', 'x.0123456789AB.tmp'])
    await sweepTemporaries(join(directory, 'none'))
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
})
