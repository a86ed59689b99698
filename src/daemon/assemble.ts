import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { messageOf } from '../base/errors.js'
import { run } from '../base/run.js'
import { HullEngine } from '../engine/engine.js'
import { EventBus } from '../engine/events.js'
import { NetworkDirectory } from '../engine/network-directory.js'
import { ContainerRegistry } from '../engine/registry.js'
import { ContainerStore } from '../engine/store.js'
import { networkIds } from '../engine/views.js'
import { hostFacts } from '../host/facts.js'
import { defaultSettings } from '../image/registry/settings.js'
import { ensureUserns, usernsPath } from '../host/userns.js'
import { openImageService } from '../image/service.js'
import { BridgeNetwork } from '../network/bridge.js'
import type { NamespaceOwners } from '../network/slots.js'
import { locateRuntime } from '../oci/runtime.js'
import { ProcessDriver } from '../sandbox/process/driver.js'
import { VmDriver } from '../sandbox/vm/driver.js'
import { IMAGE_SLOTS } from '../sandbox/vm/qemu.js'
import { diskContent } from '../storage/disk.js'
import { openStorage } from '../storage/storage.js'
import type { DaemonFlags } from './flags.js'
import { checkRemap, resolveRemap } from './userns-remap.js'

/** Built by `make`; lies beside dist/ and src/. */
const guestDir = fileURLToPath(new URL('../../build/guest', import.meta.url))
/** Ready network namespaces that are kept. */
const networkPool = 4

/** First line of what a program says of its version; '' when it is not there. */
async function versionOf(file: string, args = ['--version']): Promise<string> {
  const said = await run(file, args, { timeoutMs: 10_000 }).catch(() => undefined)
  return said?.stdout.split('\n', 1)[0]?.trim() ?? ''
}

/** The installed OCI runtimes that a user may name without a path. */
async function installedRuntimes(): Promise<Record<string, { path: string; version: string }>> {
  const found: Record<string, { path: string; version: string }> = {}
  for (const name of ['crun', 'runc']) {
    const program = await locateRuntime(name).catch(() => undefined)
    if (program) found[name] = { path: program.path, version: program.version }
  }
  return found
}

/** runsc, if it works here: it is tried, which takes a third of a second, so only when somebody asks. Not installed is no news; that it does not work is. */
async function gvisorHere(): Promise<{ path: string; version: string } | { warning: string } | undefined> {
  try {
    const { path, version } = await locateRuntime('runsc')
    return { path, version }
  } catch (error) {
    const warning = messageOf(error)
    return warning.startsWith('unknown') ? undefined : { warning }
  }
}

/** The network of a daemon with these flags. */
export function networkOf(flags: DaemonFlags, owners?: NamespaceOwners): BridgeNetwork {
  return new BridgeNetwork({
    bridgeName: flags.bridge,
    ...(flags.bip ? { bip: flags.bip } : {}),
    mtu: flags.mtu,
    stateDir: join(flags.dataRoot, 'network'),
    runDir: join(flags.execRoot, 'netns'),
    poolSize: networkPool,
    publishedPorts: flags.publishedPorts,
    ...(owners ? { owners } : {}),
  })
}

/** Puts the floors of the house together. Nothing runs yet: {@link HullEngine.restore} is next. */
export async function assembleEngine(flags: DaemonFlags): Promise<HullEngine> {
  const { dataRoot, execRoot } = flags
  const [facts, storage, runtimes] = await Promise.all([hostFacts(), openStorage({ dataRoot, execRoot, diskBytes: flags.vmDiskBytes, imageSizes: IMAGE_SLOTS }), installedRuntimes()])
  const [images, tini] = await Promise.all([
    openImageService({ dataRoot, storage, registries: { ...defaultSettings, insecure: flags.insecureRegistries } }),
    versionOf('/usr/bin/tini-static'),
    mkdir(join(execRoot, 'containers'), { recursive: true, mode: 0o711 }),
  ])
  const defaultRuntime = await locateRuntime(flags.defaultRuntime)
  const idMap = flags.usernsRemap ? await resolveRemap(flags.usernsRemap) : undefined
  if (idMap) await checkRemap(idMap, dataRoot, execRoot)
  const registry = new ContainerRegistry()
  const exitDir = join(execRoot, 'exits')
  const processDriver = new ProcessDriver({ execRoot, snapshots: storage.snapshots, cgroupParent: flags.cgroupParent })
  const network = networkOf(flags, {
    poolOwner: idMap ? usernsPath(execRoot, idMap) : '',
    ownerOf: async (id) => {
      const map = registry.find(id)?.record.idMap
      return map ? ensureUserns(execRoot, map) : ''
    },
  })
  const vmDriver = new VmDriver({
    dataRoot,
    execRoot,
    guestDir,
    exitDir,
    runtimeRoot: join(execRoot, 'runtime'),
    cgroupParent: flags.cgroupParent,
    pool: flags.vmPool,
    openTap: (id): Promise<number> => network.tapAhead(id),
    erofsFor: (chainId, layers) => storage.erofs.erofsFor(chainId, layers),
    disks: {
      usual: flags.vmDiskBytes,
      make: (path, size, uid, content) => storage.disks.create(path, size, uid, uid, content),
      content: diskContent,
    },
  })
  return new HullEngine({
    store: new ContainerStore(join(dataRoot, 'containers')),
    registry,
    images,
    network,
    directory: new NetworkDirectory(join(dataRoot, 'networks'), networkIds(dataRoot)),
    ...(idMap ? { idMap } : {}),
    drivers: { process: processDriver, vm: vmDriver },
    events: new EventBus(),
    volumeStore: storage.volumes,
    paths: { containersDir: join(dataRoot, 'containers'), execRoot, cgroupParent: flags.cgroupParent, defaultRuntime: flags.defaultRuntime },
    layerSize: (diffId) => storage.layers.get(diffId)?.size ?? 0,
    afterRestore: () => vmDriver.collectGarbage(),
    beforeLeave: () => vmDriver.endMaintenance(),
    dataRoot,
    defaultIsolation: flags.defaultIsolation,
    defaultRuntime: flags.defaultRuntime,
    insecureRegistries: flags.insecureRegistries,
    cgroupVersion: facts.cgroup.layout === 'v2' ? '2' : '1',
    components: {
      crun: runtimes['crun']?.version ?? '',
      tini: tini.replace(/^tini version /, ''),
    },
    gvisor: gvisorHere,
    runtimes: Object.fromEntries(Object.entries({ ...runtimes, [flags.defaultRuntime]: { path: defaultRuntime.path } }).map(([name, { path }]) => [name, { path }])),
    hostWarnings: facts.seccomp === 'no' ? ['The kernel has no seccomp: system calls of containers are not filtered.'] : [],
  })
}
