import { expect, it } from 'vitest'
import type { HostConfig } from '../../../src/engine/config-types.js'
import { withDefaults } from '../../../src/engine/host-defaults.js'

const said = { Memory: 0, MemorySwap: 0, ShmSize: 0, LogConfig: { Type: '', Config: {} }, RestartPolicy: { Name: '', MaximumRetryCount: 0 }, IpcMode: '', CgroupnsMode: '', Runtime: '' } as unknown as HostConfig

it('shows what was not said as what it works out to', () => {
  expect(withDefaults(said, 'process', 'crun')).toMatchObject({
    Isolation: 'process', LogConfig: { Type: 'json-file', Config: {} }, RestartPolicy: { Name: 'no' }, ShmSize: 67_108_864, MemorySwap: 0, Runtime: 'crun', IpcMode: 'private', CgroupnsMode: 'private',
  })
  expect(withDefaults({ ...said, Memory: 100 }, 'vm', 'crun')).toMatchObject({ Isolation: 'vm', MemorySwap: 200, Runtime: '' })
})

it('leaves what was said', () => {
  const host = { ...said, Memory: 100, MemorySwap: -1, ShmSize: 5, LogConfig: { Type: 'none', Config: { a: 'b' } }, Runtime: 'runc' } as HostConfig
  expect(withDefaults(host, 'process', 'crun')).toMatchObject({ MemorySwap: -1, ShmSize: 5, LogConfig: { Type: 'none', Config: { a: 'b' } }, Runtime: 'runc' })
  expect(said.LogConfig.Type).toBe('')
})
