import { onHull } from './hull.js'

// All of them boot some 500 machines: `make conformance` does, `make test` takes a share.
await onHull('vm', Number(process.env.CONFORMANCE_VM_SHARE ?? 1))
