import { expect, it } from 'vitest'
import { blamesTemplate } from '../../../src/sandbox/vm/errors.js'

it.each([
  ['QEMU cannot load the template: Unknown savevm section', true],
  ['the virtual machine ended before the workload started: QEMU ended with code 1: qemu-system-x86_64: load of migration failed', true],
  ['the virtual machine ended before the workload started: QEMU was killed by signal 11', true],
  ['the guest did not answer in time', true],
  ['the virtual machine ended before the workload started: QEMU was killed by signal 9', false],
  ['the virtual machine ended: QEMU ended with code 1', false],
  ['exec: "nosuch": executable file not found in $PATH', false],
  ['it did not rehearse in time', false],
])('a clone that ended with “%s” blames its template: %s', (words, blames) => {
  expect(blamesTemplate(new Error(words))).toBe(blames)
})
