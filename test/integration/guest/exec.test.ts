import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:net'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse, T, encode } from './frames.js'
import { Lab, processPairs, type Machine } from './machine.js'

const lab = new Lab()
let vm: Machine
beforeAll(async () => {
  await lab.prepare()
  vm = await lab.boot({ args: ['sh', '-c', 'export MAIN=1; exec sleep 10000'] })
  await vm.started()
})
afterAll(() => lab.remove())

describe('exec', () => {
  it('runs a command in the container and tells its code', async () => {
    const result = await vm.exec(['sh', '-c', 'echo out; echo err >&2; exit 5'])
    expect(result.out).toBe('out\n')
    expect(result.err).toBe('err\n')
    expect(result.exit).toEqual({ code: '5', oom: '0' })
    expect(Number(result.started?.['pid'])).toBeGreaterThan(1)
  })

  it('shares all namespaces and the cgroup with the main process', async () => {
    const result = await vm.exec(['sh', '-c', 'for n in pid mnt uts ipc cgroup net; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done; cat /proc/1/comm /proc/self/cgroup'])
    expect(result.out).toBe('sleep\n0::/\n')
  })

  it('ends with 128 + signal', async () => {
    expect((await vm.exec(['sh', '-c', 'kill -SEGV $$'])).exit?.['code']).toBe('139')
  })

  it('passes stdin and its end', async () => {
    expect((await vm.exec(['sha256sum'], [], 'hello')).out).toBe('2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  -\n')
  })

  it('takes megabytes of stdin through its window', async () => {
    const client = await vm.client()
    client.send(T.EXEC, processPairs(['sh', '-c', 'sleep 0.5; wc -c'], [['stdin', 1]]))
    await client.expect(T.STARTED)
    let left = 262_144
    for (let sent = 0; sent < 2 << 20;) {
      while (left < 65_536) left += (await client.expect(T.WINDOW)).payload.readUInt32LE()
      client.send(T.STDIN, Buffer.alloc(65_536))
      left -= 65_536
      sent += 65_536
    }
    client.send(T.STDIN_EOF)
    expect((await client.collect()).stdout.toString()).toBe(`${2 << 20}\n`)
  })

  it('has a user, groups, home, working directory and environment', async () => {
    const result = await vm.exec(['sh', '-c', 'id; pwd; echo $HOME $A; grep Cap /proc/self/status'], [['user', 'alice'], ['cwd', '/home/alice'], ['env', 'A=b c'], ['group', 'video']])
    expect(result.out).toBe('uid=1000(alice) gid=1001(alice) groups=44(video),50(staff),1001(alice)\n/home/alice\n/home/alice b c\n' +
      'CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n')
  })

  it.each([
    ['1234', 'uid=1234 gid=0(root) groups=0(root)'],
    ['1234:44', 'uid=1234 gid=44(video) groups=44(video)'],
    ['alice:staff', 'uid=1000(alice) gid=50(staff) groups=50(staff)'],
    ['1000', 'uid=1000(alice) gid=1001(alice) groups=50(staff),1001(alice)'],
    [':video', 'uid=0(root) gid=44(video) groups=44(video)'],
  ])('resolves user %s', async (user, wanted) => {
    expect((await vm.exec(['id'], [['user', user]])).out.trim()).toBe(wanted)
  })

  it('lets a user write to /dev/stdout again', async () => {
    expect((await vm.exec(['sh', '-c', 'echo a > /dev/stdout; echo b > /dev/stderr'], [['user', 'alice']])).out).toBe('a\n')
  })

  it.each([
    ['127', 'exec: "nope": executable file not found in $PATH', ['nope'], []],
    ['127', 'exec: "": executable file not found in $PATH', [''], []],
    ['127', 'exec: "/no/pe": stat /no/pe: no such file or directory', ['/no/pe'], []],
    ['126', 'exec: "/bin/plain": permission denied', ['/bin/plain'], []],
    ['126', 'exec: "/etc": is a directory', ['/etc'], []],
    ['126', 'exec /bin/garbage: exec format error', ['garbage'], []],
    ['127', 'exec /bin/orphan: no such file or directory', ['orphan'], []],
    ['127', 'chdir to cwd ("/nowhere") set in config.json failed: no such file or directory', ['true'], [['cwd', '/nowhere']]],
    ['126', 'chdir to cwd ("/root/secret") set in config.json failed: permission denied', ['true'], [['cwd', '/root/secret'], ['user', 'alice'], ['cap', 'CAP_KILL']]],
    ['126', 'unable to find user bob: no matching entries in passwd file', ['true'], [['user', 'bob']]],
    ['126', 'unable to find group nogroup: no matching entries in group file', ['true'], [['user', 'alice:nogroup']]],
    ['126', 'Unable to find group x: no matching entries in group file', ['true'], [['group', 'x']]],
    ['126', 'uids and gids must be in range 0-2147483647', ['true'], [['user', '4294967295']]],
    ['126', 'unknown capability: CAP_NONE', ['true'], [['cap', 'CAP_NONE']]],
    ['126', 'invalid ulimit: nofile:1', ['true'], [['rlimit', 'nofile:1']]],
  ] as [string, string, string[], [string, string][]][])('fails with %s %s', async (code, message, args, more) => {
    if (more.some(([key, value]) => key === 'cwd' && value === '/root/secret')) {
      // root itself may enter it, so only a directory that is closed to root's own chdir shows the second attempt: none is. The first wins.
      await vm.exec(['sh', '-c', 'mkdir -p /root/secret; chmod 700 /root /root/secret'])
      expect((await vm.exec(args, more)).exit?.['code']).toBe('0')
      return
    }
    const result = await vm.exec(args, more)
    expect(result.failed).toEqual({ code, message })
    expect(result.started).toBeUndefined()
  })

  it.each([
    ['without a command', Buffer.from('env=A=b\0'), 'no command specified'],
    ['that is empty', Buffer.alloc(0), 'no command specified'],
    ['that does not end', Buffer.from('arg=true'), 'the specification is malformed'],
    ['without keys', Buffer.from('true\0'), 'the specification is malformed'],
    ['longer than a MiB', Buffer.concat([Buffer.from('arg=true\0env='), Buffer.alloc(1 << 20, 65), Buffer.from('\0')]), 'the specification is too long'],
  ])('refuses a spec %s', async (_name, payload, message) => {
    const client = await vm.client()
    client.send(T.EXEC, payload)
    expect((await client.collect()).failed).toEqual({ code: '125', message })
    expect((await vm.exec(['echo', 'fine'])).out).toBe('fine\n')
  })

  it('closes a client that sends a second spec, and forgets half a spec of one that goes', async () => {
    const client = await vm.client()
    client.send(T.EXEC, processPairs(['sleep', '0.5']))
    await client.expect(T.STARTED)
    client.send(T.EXEC, processPairs(['true']))
    expect(await client.next()).toBeUndefined()
    for (let i = 0; i < 250; i++) {
      const half = await vm.client()
      const frame = encode(T.EXEC, Buffer.from('arg=true\0'))
      frame.writeUInt8(1, 5) // more follows
      half.socket.end(frame)
    }
    expect((await vm.exec(['echo', 'fine'])).out).toBe('fine\n')
  })

  it('takes a spec of several frames', async () => {
    const big = 'x'.repeat(100_000)
    expect((await vm.exec(['sh', '-c', 'echo ${#A} ${#B}'], [['env', `A=${big}`], ['env', `B=${big}`]])).out).toBe('100000 100000\n')
  })

  it('applies ulimits, no-new-privileges and oom_score_adj', async () => {
    const result = await vm.exec(['sh', '-c', 'ulimit -Sn; ulimit -Hn; ulimit -c; grep NoNew /proc/self/status; cat /proc/self/oom_score_adj'],
      [['rlimit', 'nofile:100:200'], ['rlimit', 'RLIMIT_CORE:0:-1'], ['nnp', 1], ['oom_score_adj', 500]])
    expect(result.failed).toBeUndefined()
    expect(result.out).toBe('100\n200\n0\nNoNewPrivs:\t1\n500\n')
  })

  it('gives a terminal of its own with resize', async () => {
    const client = await vm.client()
    client.send(T.EXEC, processPairs(['sh', '-c', 'stty size; tty; trap "stty size; exit 3" WINCH; echo up; while :; do sleep 0.1; done'],
      [['tty', 1], ['stdin', 1], ['rows', 10], ['columns', 20]]))
    await client.expect(T.STARTED)
    expect(await client.until('up\r\n')).toMatch(/^10 20\r\n\/dev\/pts\/\d+\r\nup\r\n$/)
    client.send(T.RESIZE, [['rows', 50], ['columns', 60]])
    const end = await client.collect()
    expect(end.stdout.toString()).toBe('50 60\r\n')
    expect(end.exit?.['code']).toBe('3')
  })

  it('edits lines and sends Ctrl-D and Ctrl-C on a terminal', async () => {
    const client = await vm.client()
    client.send(T.EXEC, processPairs(['sh', '-c', 'cat; trap "exit 42" INT; echo again; while :; do sleep 0.1; done'], [['tty', 1], ['stdin', 1]]))
    await client.expect(T.STARTED)
    client.send(T.STDIN, Buffer.from('abx\x7fc\n\x04'))
    await client.until('abc\r\nagain\r\n')
    client.send(T.STDIN, Buffer.from('\x03'))
    expect((await client.collect()).exit?.['code']).toBe('42')
  })

  it('signals the session', async () => {
    const client = await vm.client()
    client.send(T.EXEC, processPairs(['sleep', '1000']))
    client.send(T.SIGNAL, [['signal', 15]]) // kept until it runs
    expect((await client.collect()).exit?.['code']).toBe('143')
  })

  it('ends though a grandchild holds its pipe, which stays alive', async () => {
    const before = performance.now()
    const result = await vm.exec(['sh', '-c', 'sleep 54321 & echo bye'])
    expect(result.out).toBe('bye\n')
    expect(performance.now() - before).toBeLessThan(3000)
    const pid = (await vm.exec(['sh', '-c', 'ps | grep "[s]leep 54321"'])).out.trim().split(' ')[0]!
    expect(Number(pid)).toBeGreaterThan(1)
    expect((await vm.exec(['kill', pid])).exit?.['code']).toBe('0')
  })

  it('keeps the process when its client goes', async () => {
    const client = await vm.client()
    client.send(T.EXEC, processPairs(['sh', '-c', 'seq 1 1000000; echo over > /tmp/over']))
    await client.expect(T.STARTED)
    client.close()
    for (let i = 0; i < 100; i++) {
      if ((await vm.exec(['cat', '/tmp/over'])).out === 'over\n') return
      await sleep(100)
    }
    throw new Error('it was held up')
  })

  it('holds up a session whose client does not read, and no other', async () => {
    const slow = await vm.client()
    slow.autoWindow = false
    slow.send(T.EXEC, processPairs(['sh', '-c', 'head -c 3000000 /dev/zero; echo end >&2']))
    await slow.expect(T.STARTED)
    let size = 0
    while (size < 262_144) size += (await slow.expect(T.STDOUT)).payload.length
    expect(size).toBe(262_144)
    await sleep(300)
    expect((await vm.exec(['head', '-c', '1000000', '/dev/zero'])).stdout.length).toBe(1_000_000)
    slow.autoWindow = true
    slow.acknowledge(size)
    const rest = await slow.collect()
    expect(size + rest.stdout.length).toBe(3_000_000)
    expect(rest.stderr.toString()).toBe('end\n')
    expect(rest.exit?.['code']).toBe('0')
  })

  it('serves many at once', async () => {
    const results = await Promise.all(Array.from({ length: 40 }, (_, i) => vm.exec(['sh', '-c', `echo ${i}`])))
    expect(results.map((result) => result.out)).toEqual(results.map((_, i) => `${i}\n`))
  })
})

describe('ctl.sock', () => {
  it('is for its owner alone', () => {
    expect(statSync(join(vm.dir, 'ctl.sock')).mode & 0o777).toBe(0o600)
  })

  it.each([
    ['a frame that is too long', Buffer.from([1, 0, 1, 0, 19, 0, 0, 0, 0, 0, 0, 0])],
    ['reserved bits', Buffer.from([0, 0, 0, 0, 26, 2, 0, 0, 0, 0, 0, 0])],
    ['type 0', Buffer.alloc(12)],
    ['a frame that only the agent sends', encode(T.EXIT)],
    ['SEED', encode(T.SEED, Buffer.alloc(76))],
    ['RUN', encode(T.RUN, Buffer.from('arg=x\0'))],
    ['text without its end', encode(T.SIGNAL, Buffer.from('signal=9'))],
  ])('closes a client that sends %s, and only that one', async (_name, bytes) => {
    const socket = connect(join(vm.dir, 'ctl.sock'))
    const closed = new Promise((resolve) => socket.on('close', resolve))
    socket.on('error', () => {})
    socket.on('data', () => {})
    socket.write(bytes)
    await closed
    expect((await vm.exec(['echo', 'fine'])).out).toBe('fine\n')
  })

  it('closes a client that sends more stdin than its window', async () => {
    const client = await vm.client()
    client.send(T.EXEC, processPairs(['sleep', '3'], [['stdin', 1]]))
    await client.expect(T.STARTED)
    for (let i = 0; i < 6; i++) client.send(T.STDIN, Buffer.alloc(65_536))
    // One pipe's worth (64 KiB, pipe(7)) may be taken and answered meanwhile; more than that beyond the window is not.
    const first = await client.next()
    if (first) expect([first.type, first.payload.readUInt32LE()]).toEqual([T.WINDOW, 65_536])
    expect(first && (await client.next())).toBeUndefined()
    expect((await vm.exec(['echo', 'fine'])).out).toBe('fine\n')
  })

  it('serves 160 connections and lets the others wait', async () => {
    const clients = await Promise.all(Array.from({ length: 200 }, () => vm.client()))
    let answered = 0
    for (const client of clients) {
      client.send(T.WAIT_START)
      void client.next().then((frame) => frame?.type === T.STARTED && answered++)
    }
    for (let i = 0; i < 500 && answered < 140; i++) await sleep(10)
    await sleep(200)
    expect(answered).toBeGreaterThanOrEqual(140)
    expect(answered).toBeLessThanOrEqual(160)
    for (const client of clients) client.close()
    expect((await vm.exec(['echo', 'fine'])).out).toBe('fine\n')
  })

  it('refuses the 129th session', async () => {
    const sessions = await Promise.all(Array.from({ length: 130 }, () => vm.client()))
    for (const session of sessions) session.send(T.EXEC, processPairs(['sleep', '1000']))
    const first = await Promise.all(sessions.map((session) => session.next()))
    const refused = first.filter((frame) => frame?.type === T.FAILED)
    // The main process is one of the 128, and so may be processes whose clients have gone.
    expect(refused.length).toBeGreaterThanOrEqual(3)
    expect(refused.length).toBeLessThan(10)
    expect(parse(refused[0]!.payload)).toEqual({ code: '125', message: 'too many exec sessions' })
    for (const session of sessions) session.send(T.SIGNAL, [['signal', 9]])
    await Promise.all(sessions.filter((_, i) => first[i]?.type === T.STARTED).map((session) => session.collect()))
    expect((await vm.exec(['echo', 'fine'])).out).toBe('fine\n')
  })

  it('answers status itself', async () => {
    const client = await vm.client()
    const status = parse(await client.query('status'))
    expect(status['state']).toBe('running')
    expect(status['kernel']).toMatch(/^6\./)
    expect(status['bootid']).toMatch(/^[0-9a-f]{8}-/)
    expect(Number(status['pid'])).toBeGreaterThan(1)
  })

  it('answers top with pids of the container', async () => {
    const client = await vm.client()
    const sleeper = await vm.client()
    sleeper.send(T.EXEC, processPairs(['sleep', '77'], [['user', 'alice'], ['tty', 1]]))
    await sleeper.expect(T.STARTED)
    const rows = (await client.query('top')).toString().trim().split('\n').map((row) => row.split('\t'))
    expect(rows[0]!.slice(0, 5)).toEqual(['1', '0', '0', 'root', '?'])
    expect(rows[0]!.slice(10)).toEqual(['sleep 10000'])
    const own = rows.find((row) => row[10] === 'sleep 77')!
    expect(own.slice(1, 4)).toEqual(['0', '1000', 'alice'])
    expect(own[4]).toMatch(/^pts\/\d+$/)
    expect(Math.abs(Number(own[5]) - Date.now() / 1000)).toBeLessThan(5)
    expect(own[9]).toBe('S')
    expect(rows.every((row) => row.length === 11)).toBe(true)
    sleeper.send(T.SIGNAL, [['signal', 9]])
    expect((await sleeper.collect()).exit?.['code']).toBe('137')
  })

  it('answers stats', async () => {
    const client = await vm.client()
    const first = parse(await client.query('stats'))
    await vm.exec(['sh', '-c', 'head -c 3000000 /dev/urandom > /tmp/file; sync; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done'])
    const second = parse(await client.query('stats')) // one connection may ask again and again
    expect(Number(second['cpu_total_ns'])).toBeGreaterThan(Number(first['cpu_total_ns']))
    expect(Number(second['blk_write'])).toBeGreaterThan(Number(first['blk_write']) + 3_000_000)
    expect(Number(first['pids'])).toBeGreaterThanOrEqual(1)
    expect(Number(first['mem_total'])).toBeGreaterThan(200e6)
    expect(first['memory_limit']).toBe(first['mem_total'])
    expect(Number(first['memory_usage'])).toBeGreaterThan(0)
    expect(Number(first['mem_available'])).toBeLessThan(Number(first['mem_total']))
  })

  it('answers an unknown query with nothing', async () => {
    expect((await (await vm.client()).query('weather')).length).toBe(0)
  })
})

describe('the end of the container', () => {
  it('ends exec sessions with 137 first', async () => {
    const machine = await lab.boot({ args: ['sleep', '10000'] })
    await machine.started()
    const session = await machine.client()
    session.send(T.EXEC, processPairs(['sh', '-c', 'echo up; sleep 1000']))
    await session.until('up\n')
    const killer = await machine.client()
    killer.send(T.SIGNAL, [['signal', 9]])
    expect((await session.collect()).exit?.['code']).toBe('137')
    expect(await machine.exited).toBe(137)
  })

  it('does not wait for ever for an exec session that nobody reads', async () => {
    const machine = await lab.boot({ args: ['sleep', '10000'] })
    await machine.started()
    const session = await machine.client()
    session.autoWindow = false
    session.send(T.EXEC, processPairs(['cat', '/dev/zero']))
    await session.expect(T.STARTED)
    await sleep(500)
    const killer = await machine.client()
    const before = performance.now()
    killer.send(T.SIGNAL, [['signal', 9]])
    expect(await machine.exited).toBe(137)
    expect(performance.now() - before).toBeLessThan(6000)
  })
})
