import { expect } from 'vitest'
import { cases, check, refused, text, until } from './harness.js'

check('exec', 'streams apart, exit code', async (c) => {
  expect(await c.exec(await c.shared(), ['sh', '-c', 'echo out; echo err >&2; exit 6'])).toEqual({ code: 6, out: 'out\n', err: 'err\n' })
})

check('exec', 'input and its end', async (c) => {
  expect(await c.exec(await c.shared(), ['sh', '-c', 'cat; echo end'], {}, 'in\n')).toEqual({ code: 0, out: 'in\nend\n', err: '' })
})

check('exec', 'two megabytes through and back', async (c) => {
  const data = 'x'.repeat(1023) + '\n'
  const said = await c.exec(await c.shared(), ['cat'], {}, data.repeat(2048))
  expect(said.out.length).toBe(2 << 20)
})

cases<[object, string, string]>('exec', 'has', [
  ['environment', { Env: ['A=1', 'B=2 3'] }, 'echo "$A $B"', '1 2 3\n'],
  ['user', { User: '1000:2000' }, 'id -u; id -g', '1000\n2000\n'],
  ['user by name', { User: 'user' }, 'id -un; echo $HOME', 'user\n/home/user\n'],
  ['working directory', { WorkingDir: '/usr' }, 'pwd', '/usr\n'],
  ['terminal', { Tty: true }, 'tty > /dev/null && echo terminal', 'terminal\r\n'],
  ['process table of the container', {}, 'ls -d /proc/1', '/proc/1\n'],
], async (c, options, script, wanted) => {
  expect((await c.exec(await c.shared(), ['sh', '-c', script], options)).out).toBe(wanted)
})

check('exec', 'inspect before, while and after', async (c) => {
  const made = await c.shared()
  const exec = await made.exec({ Cmd: ['sh', '-c', 'read x; exit 4'], AttachStdin: true, AttachStdout: true })
  expect(await exec.inspect()).toMatchObject({ ID: exec.id, Running: false, ExitCode: null, ContainerID: made.id, OpenStdin: true, ProcessConfig: { entrypoint: 'sh', tty: false } })
  const stream = await exec.start({ hijack: true, stdin: true })
  await until('it runs', async () => (await exec.inspect()).Running && (await exec.inspect()).Pid > 0)
  stream.end('x\n')
  await text(stream)
  await until('it ended', async () => !(await exec.inspect()).Running)
  expect(await exec.inspect()).toMatchObject({ Running: false, ExitCode: 4 })
})

check('exec', 'detached', async (c) => {
  const made = await c.shared()
  const file = `/tmp/${c.name()}`
  const exec = await made.exec({ Cmd: ['sh', '-c', `echo x > ${file}`] })
  await exec.start({ Detach: true })
  await until('it wrote', async () => (await c.exec(made, ['test', '-e', file])).code === 0)
})

check('exec', 'a terminal is resized', async (c) => {
  const exec = await (await c.shared()).exec({ Cmd: ['sh', '-c', 'while [ "$(stty size)" != "21 43" ]; do sleep 0.1; done; echo sized'], Tty: true, AttachStdout: true, AttachStdin: true })
  const stream = await exec.start({ hijack: true, stdin: true, Tty: true })
  await until('it runs', async () => (await exec.inspect()).Running)
  await exec.resize({ h: 21, w: 43 })
  expect((await text(stream)).toString()).toContain('sized')
})

check('exec', 'detach keys leave it running', async (c) => {
  const made = await c.shared()
  const exec = await made.exec({ Cmd: ['sleep', '55.5'], Tty: true, AttachStdin: true, AttachStdout: true, DetachKeys: 'ctrl-q' })
  const stream = await exec.start({ hijack: true, stdin: true, Tty: true })
  await until('it runs', async () => (await exec.inspect()).Running)
  stream.write('\x11')
  await text(stream)
  expect((await c.exec(made, ['sh', '-c', 'ps | grep -v grep | grep -q "sleep 55.5"'])).code).toBe(0)
})

check('exec', 'a command that is not there', async (c) => {
  const said = await c.exec(await c.shared(), ['nosuchcommand'])
  expect(said.code).toBe(127)
  expect(said.out + said.err).toMatch(/not found/)
})

check('exec', 'refused', async (c) => {
  await refused(404, /No such exec instance: nosuch/, c.docker.getExec('nosuch').inspect())
  await refused(409, /is not running/, (await c.create()).exec({ Cmd: ['true'] }))
  await refused(400, /No exec command specified/, (await c.shared()).exec({ Cmd: [] }))
  await refused(404, /No such container: nosuch/, c.docker.getContainer('nosuch').exec({ Cmd: ['true'] }))
})
