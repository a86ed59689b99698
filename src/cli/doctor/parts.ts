/*
 * The one part of the CLI that reaches into the engine's floors, and lazily. `hull doctor` is for the machine on which the daemon does NOT start, so
 * it cannot ask the daemon; and it must judge runtimes and boot guests with the daemon's own code, or it would judge something else. Each import
 * is by itself, so that a missing addon (build/hull.node) spoils the checks that need it and no others.
 */
/* eslint-disable import-x/no-restricted-paths */
export const engine = {
  facts: () => import('../../host/facts.js'),
  native: () => import('../../host/native.js'),
  runtime: () => import('../../oci/runtime.js'),
  jailroot: () => import('../../sandbox/vm/jailroot.js'),
  probe: () => import('../../sandbox/vm/probe.js'),
}
