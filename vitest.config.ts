import { defineConfig } from 'vitest/config'

// Three projects, because they need different things: `unit` runs anywhere, `integration` and `behaviour`
// need root and the real kernel, and must not share the machine with one another.
export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 20_000 } },
      {
        test: {
          name: 'integration', include: ['test/integration/**/*.test.ts'],
          testTimeout: 120_000, hookTimeout: 120_000, pool: 'forks', poolOptions: { forks: { singleFork: true } },
        },
      },
      {
        test: {
          name: 'behaviour', include: ['test/behaviour/**/*.test.ts'],
          testTimeout: 120_000, hookTimeout: 180_000, pool: 'forks', poolOptions: { forks: { singleFork: true } },
        },
      },
      // Docker's own clients. `conformance-dockerd` is the same against Debian's dockerd, to prove the checks right.
      {
        test: {
          name: 'conformance', include: ['test/conformance/**/*.test.ts'],
          testTimeout: 120_000, hookTimeout: 300_000, pool: 'forks', poolOptions: { forks: { singleFork: true } },
        },
      },
      {
        test: {
          name: 'conformance-dockerd', include: ['test/conformance/dockerd.peer.ts'],
          testTimeout: 120_000, hookTimeout: 180_000, pool: 'forks', poolOptions: { forks: { singleFork: true } },
        },
      },
    ],
  },
})
