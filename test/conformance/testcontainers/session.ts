// What a test suite does with Testcontainers, as a process of its own: starts PostgreSQL and Redis, asks them things, and ends without tidying up, which is the reaper's work.
// Prints one line of JSON for the test that started it.
import { once } from 'node:events'
import { connect } from 'node:net'
import { GenericContainer, Network, Wait } from 'testcontainers'

const network = await new Network().start()
const [postgres, redis] = await Promise.all([
  new GenericContainer('test/postgres:1')
    .withEnvironment({ POSTGRES_USER: 'shop', POSTGRES_PASSWORD: 'secret', POSTGRES_DB: 'shop', POSTGRES_INITDB_ARGS: '--no-sync' })
    .withCopyContentToContainer([{ content: 'CREATE TABLE items (name text); INSERT INTO items VALUES (\'from init\');', target: '/docker-entrypoint-initdb.d/items.sql' }])
    .withExposedPorts(5432)
    .withNetwork(network)
    .withNetworkAliases('database')
    // Twice, as with the official image: the first server is the one of the initialization.
    .withWaitStrategy(Wait.forAll([Wait.forLogMessage(/database system is ready to accept connections/, 2), Wait.forListeningPorts()]))
    .withStartupTimeout(480_000)
    .start(),
  new GenericContainer('test/redis:1').withExposedPorts(6379).withNetwork(network).withWaitStrategy(Wait.forLogMessage('Ready to accept connections')).withStartupTimeout(480_000).start(),
])

/** One command of Redis' inline protocol, over the published port. */
async function ask(line: string): Promise<string> {
  const socket = connect(redis.getFirstMappedPort(), redis.getHost())
  await once(socket, 'connect')
  socket.write(`${line}\r\n`)
  const [answer] = (await once(socket, 'data')) as [Buffer]
  socket.destroy()
  return answer.toString()
}

const psql = (...words: string[]) => postgres.exec(['psql', '-At', 'postgresql://shop:secret@127.0.0.1/shop', '-c', ...words])
await psql('INSERT INTO items VALUES (\'from a query\')')
const rows = await psql('SELECT name FROM items ORDER BY name')
await ask('SET greeting hello')
const said = {
  rows: rows.output.trim().split('\n'),
  redis: await ask('GET greeting'),
  // Over the network, by its alias, from the other container.
  reached: (await redis.exec(['sh', '-c', 'pg_isready -h database'])).output.trim(),
  kernel: (await postgres.exec(['uname', '-r'])).output.trim(),
  ids: [postgres.getId(), redis.getId()],
  network: network.getId(),
}
console.log(JSON.stringify(said))
// No stop(): the process goes, its connection to the reaper with it.
process.exit(0)
