import { describe, expect, it } from 'vitest'
import { HullError } from '../../../src/base/errors.js'
import { checkSysctls } from '../../../src/oci/sysctls.js'
import { deviceNumbers, deviceRule } from '../../../src/sandbox/process/devices.js'

const own = { ipc: true, network: true, uts: true }
const refused = (name: string, namespaces = own) => {
  try {
    checkSysctls({ [name]: '1' }, namespaces)
    return ''
  } catch (error) {
    expect(error).toBeInstanceOf(HullError)
    expect((error as HullError).statusCode).toBe(400)
    return (error as HullError).message
  }
}

describe('sysctls of a container', () => {
  it('are those of its own namespaces, written with dots or slashes', () => {
    for (const name of ['net.ipv4.ip_forward', 'net/ipv4/conf/eth0.1/forwarding', 'kernel.shmmax', 'kernel/msgmax', 'fs.mqueue.msg_max', 'kernel.domainname']) expect(refused(name), name).toBe('')
  })

  it('are never the host\'s', () => {
    for (const name of ['kernel.panic', 'vm.swappiness', 'fs.file-max', 'kernel/core_pattern', 'kernel.shmmaxx', 'user.max_user_namespaces']) expect(refused(name)).toContain('is not in a separate kernel namespace')
    expect(refused('net.core.somaxconn', { ...own, network: false })).toContain('not allowed in host network namespace')
    expect(refused('kernel.sem', { ...own, ipc: false })).toContain('is not in a separate kernel namespace')
    expect(refused('kernel.domainname', { ...own, uts: false })).toContain('host UTS namespace')
    expect(refused('kernel.hostname')).toContain('conflicts')
  })

  it('do not climb', () => {
    for (const name of ['net/../kernel/panic', 'net..kernel.panic', '.net', 'net.', 'net./kernel', 'net\0', 'net.ipv4 x', '']) expect(refused(name), name).not.toBe('')
  })
})

describe('device rules', () => {
  it('are read as devices.allow is written', () => {
    expect(deviceRule('c 1:3 mr')).toEqual({ allow: true, type: 'c', major: 1, minor: 3, access: 'mr' })
    expect(deviceRule('a *:* rwm')).toEqual({ allow: true, type: 'a', access: 'rwm' })
    expect(deviceRule('b 7:* r')).toEqual({ allow: true, type: 'b', major: 7, access: 'r' })
    for (const text of ['', 'c 1:3', 'x 1:3 r', 'c 1:3 q', 'c 1:3 rwmr', 'c -1:3 r', 'c 1:3 r\n', ' c 1:3 r']) expect(() => deviceRule(text), text).toThrow('invalid device cgroup rule format')
  })

  it('know a node\'s numbers', () => {
    expect(deviceNumbers(0x0103)).toEqual({ major: 1, minor: 3 })
    expect(deviceNumbers(0x10_0805)).toEqual({ major: 8, minor: 0x105 })
  })
})
