import { expect, it } from 'vitest'
import { StartFailure } from '../../../src/sandbox/vm/client.js'
import { blamesTemplate, leftFailure } from '../../../src/sandbox/vm/errors.js'
import { parseVmStatus } from '../../../src/sandbox/vm/vmdir.js'

it.each([
  ['QEMU cannot load the template: Unknown savevm section', true],
  ['QEMU cannot load the template', true],
  ['the virtual machine ended before the workload started: QEMU ended with code 1: qemu-system-x86_64: load of migration failed', true],
  ['the virtual machine ended before the workload started: QEMU was killed by signal 11', true],
  ['the guest did not answer in time', true],
  ['the virtual machine ended before the workload started: QEMU was killed by signal 9', false],
  ['the virtual machine ended: QEMU ended with code 1', false],
  ['it did not rehearse in time', false],
  // What a user, or his image, has put into a sentence of the agent's.
  ['exec: "nosuch": executable file not found in $PATH', false],
  ['exec: "the guest did not answer in time": executable file not found in $PATH', false],
  ['unable to find user QEMU cannot load the template: no matching entries in passwd file', false],
  ['tmpfs /the virtual machine ended before the workload started: QEMU ended with code 1: Not a directory', false],
  ['rehearsal: the guest did not answer in time', false],
  ['the guest did not answer in time: /x', false],
  ['sysctl x=\nthe guest did not answer in time', false],
])('a clone that ended with “%s” blames its template: %s', (message, blames) => {
  expect(blamesTemplate(new StartFailure({ code: 125, message }))).toBe(blames)
  expect(blamesTemplate(leftFailure(parseVmStatus(`code=125\noom=0\nmessage=${message}\n`)))).toBe(blames)
})

it.each([126, 127])('a workload that could not be started (%i) blames none, whatever it is called', (code) => {
  expect(blamesTemplate(new StartFailure({ code, message: 'the guest did not answer in time' }))).toBe(false)
})

it('nor does what nobody of the machine has said', () => {
  expect(blamesTemplate(new Error('the guest did not answer in time'))).toBe(false)
  expect(blamesTemplate(leftFailure(undefined))).toBe(false)
})
