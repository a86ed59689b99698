import { codeOf } from '../base/errors.js'
import { log } from '../base/log.js'
import { run } from '../base/run.js'
import type { PortBinding } from './types.js'

// UDP has no connections, but the kernel's NAT remembers flows, and every datagram keeps its flow alive: a client that goes on sending while the
// container behind a port is replaced would be sent to the old one's address for ever (moby #8795). So such flows are forgotten.
// The program `conntrack` does it; a host without it keeps them until the client is silent for 30 (unanswered) to 120 seconds.

/** More ports than this are not looked through one by one at a start. */
const maxPorts = 32

async function forget(filter: string[]): Promise<void> {
  try {
    // Exit code 1: there was no such flow.
    await run('conntrack', ['-D', '-f', 'ipv4', '-p', 'udp', ...filter], { maxBuffer: 4096, timeoutMs: 5_000 })
  } catch (error) {
    if (codeOf(error) === 'ENOENT') log.debug('network: no conntrack program, UDP flows of the past stay until they expire')
    else log.warn('network: cannot forget UDP flows', { error })
  }
}

const udpPorts = (ports: readonly PortBinding[]) => ports.filter((binding) => binding.protocol === 'udp' && !binding.hostIp.includes(':'))

/** Forgets the UDP flows that were forwarded to a container. For its end; nothing is done when it published no UDP port. Never rejects. */
export async function forgetFlowsTo(address: string, ports: readonly PortBinding[]): Promise<void> {
  if (udpPorts(ports).length > 0) await forget(['--reply-src', address])
}

/** Forgets UDP flows to ports that nobody had until now: they were answered by the host itself. For a container's start. Never rejects. */
export async function forgetFlowsBefore(ports: readonly PortBinding[]): Promise<void> {
  const numbers = new Set(udpPorts(ports).map((binding) => binding.hostPort))
  for (const number of [...numbers].slice(0, maxPorts)) await forget(['--orig-port-dst', String(number)])
}
