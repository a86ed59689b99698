import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, type Duplex } from 'node:stream'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { Client } from '../../../src/cli/client.js'
import { runCommand, type CommandDefinition } from '../../../src/cli/command.js'
import { startDefinition } from '../../../src/cli/commands/attach.js'
import { runDefinition } from '../../../src/cli/commands/run.js'

const directory = mkdtempSync(join(tmpdir(), 'hull-cli-run-'))
afterAll(() => { rmSync(directory, { recursive: true, force: true }) })
let server: Server | undefined
afterEach(async () => { await new Promise<void>((done) => { server?.closeAllConnections(); if (server) server.close(() => done()); else done() }) })

/** A daemon of one container, whose wait ends as `wait` wants it once the container was started. */
async function daemon(wait: (response: ServerResponse) => void): Promise<{ client: Client; attached: () => URLSearchParams }> {
  const path = join(directory, 's')
  let attach = ''
  let session: Duplex | undefined
  let waiter: ServerResponse | undefined
  server = createServer((request, response) => {
    request.resume()
    const { pathname } = new URL(request.url ?? '', 'http://hull')
    if (pathname.endsWith('/create')) response.writeHead(201).end('{"Id":"abc"}')
    else if (pathname.endsWith('/json')) {
      response.end(JSON.stringify({ Id: 'abc', State: {}, Config: { Tty: false, OpenStdin: false }, HostConfig: {}, NetworkSettings: {} }))
    } else if (pathname.endsWith('/wait')) {
      waiter = response
      response.writeHead(200)
      response.flushHeaders()
    } else if (pathname.endsWith('/start')) {
      response.writeHead(204).end()
      setTimeout(() => {
        session?.end()
        wait(waiter!)
      }, 20)
    }
  })
  server.on('upgrade', (request, socket) => {
    attach = request.url ?? ''
    session = socket
    socket.on('error', () => {}).resume()
    socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n')
  })
  await new Promise<void>((done) => { server!.listen(path, done) })
  return { client: new Client(`unix://${path}`), attached: () => new URL(attach, 'http://hull').searchParams }
}

async function hull(client: Client, name: string, definition: CommandDefinition, ...argv: string[]) {
  const streams = { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough() }
  streams.stdin.end()
  const code = await runCommand(name, definition, argv, { client, streams })
  return { code, err: String(streams.stderr.read() ?? '') }
}

describe('the exit code of run and start -a', () => {
  const commands: [string, CommandDefinition, string[]][] = [['run', runDefinition, ['busybox']], ['start', startDefinition, ['-a', 'web']]]
  it.each(commands)("%s: the workload's", async (name, definition, argv) => {
    const { client } = await daemon((response) => response.end('{"StatusCode":7}'))
    expect(await hull(client, name, definition, ...argv)).toEqual({ code: 7, err: '' })
  })
  it.each(commands)('%s: 125 when the daemon dies meanwhile', async (name, definition, argv) => {
    const { client } = await daemon((response) => response.destroy())
    await expect(hull(client, name, definition, ...argv)).rejects.toMatchObject({ exitCode: 125, message: expect.stringMatching(/^error waiting for container: /) as string })
  })
  it.each(commands)('%s: 125 when the daemon ends without an answer', async (name, definition, argv) => {
    const { client } = await daemon((response) => response.end())
    await expect(hull(client, name, definition, ...argv)).rejects.toMatchObject({ exitCode: 125 })
  })
  it.each(commands)('%s: 125 when the wait failed', async (name, definition, argv) => {
    const { client } = await daemon((response) => response.end('{"StatusCode":0,"Error":{"Message":"it broke"}}'))
    expect(await hull(client, name, definition, ...argv)).toEqual({ code: 125, err: 'Error waiting for container: it broke\n' })
  })
})

describe('the streams of run', () => {
  it('attaches stdin for -i whatever -a says', async () => {
    const { client, attached } = await daemon((response) => response.end('{"StatusCode":0}'))
    expect((await hull(client, 'run', runDefinition, '-i', '-a', 'stdout', 'busybox')).code).toBe(0)
    expect(Object.fromEntries(attached())).toEqual({ stream: '1', stdin: '1', stdout: '1' })
  })
})
