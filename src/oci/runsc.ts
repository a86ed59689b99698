import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { messageOf } from '../base/errors.js'
import { run } from '../base/run.js'

/** Signals that gVisor's sentry keeps for itself instead of passing them on to the workload: SIGPIPE and SIGURG, which Go's runtime takes. `runsc kill` brings them. */
export const KEPT_SIGNALS: readonly number[] = [13, 23]

/** What of a container decides the flags of every call of runsc. */
export interface RunscWorkload {
  network: 'none' | 'host' | 'bridge'
  /** With CAP_. */
  capabilities: readonly string[]
}

/**
 * Flags before the subcommand (`runsc flags`). The network: gVisor's own stack takes the addresses of the namespace's links and speaks through them; `none` is a loopback alone;
 * `host` makes the host's sockets. Without --net-raw CAP_NET_RAW is taken from everybody, whatever --cap-add says.
 */
export function runscFlags(workload: RunscWorkload): string[] {
  return [`--network=${workload.network === 'bridge' ? 'sandbox' : workload.network}`, ...(workload.capabilities.includes('CAP_NET_RAW') ? ['--net-raw'] : [])]
}

/** Linux 5.8 and 5.9: gVisor has nothing that they would allow, and refuses names that it does not know (runsc/specutils, capFromName). */
const UNKNOWN = ['CAP_PERFMON', 'CAP_BPF', 'CAP_CHECKPOINT_RESTORE']

/** Without those that gVisor does not know; all with CAP_. */
export const knownToGvisor = (capabilities: readonly string[]): string[] => capabilities.filter((name) => !UNKNOWN.includes(name))

/** Runs `true` in gVisor, on a view of the host's files that cannot be written to, without network and cgroup: a third of a second. Undefined: it works; else runsc's last word. */
async function probe(path: string): Promise<string | undefined> {
  const root = await mkdtemp(join(tmpdir(), 'hull-runsc-'))
  try {
    const said = await run(path, ['--root', root, '--network=none', '--ignore-cgroups', 'do', '/bin/true'], { timeoutMs: 20_000 })
    if (said.code === 0) return undefined
    return (said.stderr || said.stdout).trim().split('\n').at(-1)?.slice(0, 300) || `runsc ended with code ${said.code ?? said.signal}`
  } catch (error) {
    return messageOf(error)
  } finally {
    await rm(root, { recursive: true, force: true })
  }
}

/** A failure may have been the moment's: it is forgotten after so long, ms. */
const FORGET = 60_000
const probes = new Map<string, Promise<string | undefined>>()

/** Undefined: this runsc works on this host, which has been tried, once for each file. Else why not: a host may forbid ptrace(2), user namespaces, or the mounts of its sandbox. */
export function whyRunscFails(path: string, mtimeMs: number): Promise<string | undefined> {
  const key = `${path} ${mtimeMs}`
  let answer = probes.get(key)
  if (!answer) {
    probes.set(key, (answer = probe(path)))
    void answer.then((reason) => reason !== undefined && setTimeout(() => probes.delete(key), FORGET).unref())
  }
  return answer
}
