// `make conformance-dockerd`: the checks against Debian's dockerd, which proves the checks. Not part of `make test`: it needs docker.io.
import { Dockerd } from './lib/dockerd.js'
import { defineConformance } from './suite.js'

await defineConformance('dockerd', () => Dockerd.start(), { sideBySide: false })
