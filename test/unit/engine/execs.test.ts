import { expect, it } from 'vitest'
import type { CreateExecRequest } from '../../../src/engine/api-types.js'
import { Container } from '../../../src/engine/container.js'
import { Execs } from '../../../src/engine/execs.js'
import type { Lifecycle } from '../../../src/engine/lifecycle.js'
import { ContainerRegistry } from '../../../src/engine/registry.js'
import type { ContainerRecord } from '../../../src/engine/store.js'
import type { ExecSession, Sandbox } from '../../../src/sandbox/types.js'

const request = { cmd: ['x'], env: [], tty: false, attachStdin: false, privileged: false, user: '', workingDir: '' } as unknown as CreateExecRequest

it('a session that is never started goes with the run that it was made in; one that runs is still told of', async () => {
  const registry = new ContainerRegistry()
  const container = new Container({
    id: 'c', name: 'c', isolation: 'vm', state: { status: 'running' }, config: { Env: [], Hostname: 'c', WorkingDir: '', User: '' }, hostConfig: { GroupAdd: [], Privileged: false },
  } as unknown as ContainerRecord)
  registry.add(container)
  let exit!: (code: number) => void
  const session = { pid: 5, exited: new Promise<number>((resolve) => (exit = resolve)) } as ExecSession
  container.sandbox = { exec: async () => session } as unknown as Sandbox
  const execs = new Execs(registry, { announce: () => {} } as unknown as Lifecycle)

  const [forgotten, another, started] = [await execs.create('c', request), await execs.create('c', request), await execs.create('c', request)]
  await execs.start(started, { detach: true })
  expect(await execs.inspect(forgotten)).toMatchObject({ running: false, exitCode: null })
  container.record.state.status = 'exited'
  container.endRun()
  for (const id of [forgotten, another]) await expect(execs.inspect(id)).rejects.toThrow('No such exec instance')
  expect([...container.execs]).toEqual([started])
  exit(3)
  await session.exited
  expect(await execs.inspect(started)).toMatchObject({ running: false, exitCode: 3 })

  // The next run has its own.
  container.record.state.status = 'running'
  const next = await execs.create('c', request)
  expect(await execs.inspect(next)).toMatchObject({ running: false })
  container.record.state.status = 'exited'
  container.endRun()
  await expect(execs.inspect(next)).rejects.toThrow('No such exec instance')
  expect(container.execs.size).toBe(0)
})
