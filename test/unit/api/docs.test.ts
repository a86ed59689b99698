import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { createRouter } from '../../../src/api/server.js'

it('docs/docker-api.md names every endpoint, and none that is not there', () => {
  const text = readFileSync(new URL('../../../docs/docker-api.md', import.meta.url), 'utf8')
  const documented = [...text.matchAll(/^\| `([A-Z]+ \/[^`]*)` \| (yes|no|not yet) \| (yes|no|not yet) \|/gm)].map((match) => match[1]!)
  // Swarm's collections share one line of the table.
  const served = createRouter().endpoints.filter((endpoint) => !/^[A-Z]+ \/(nodes|services|tasks|secrets|configs)(\/|$)/.test(endpoint))
  expect(documented.toSorted()).toEqual(served.toSorted())
})
