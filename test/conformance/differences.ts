/** Against what a check is run: Debian's dockerd (20.10 in Debian 12), or Hull with this default isolation. */
export type On = 'dockerd' | 'process' | 'vm'

/** A check that is expected to fail there, and why that is right. docs/docker-api.md has a line for each of Hull's. */
export interface Difference {
  check: string
  on: On[]
  reason: string
  /** It depends on the machine, and may as well not differ. */
  maybe?: true
}

/** dockerd 20.10 speaks API 1.41; the checks hold to 1.47, where later versions say it better. */
const later = (check: string, reason: string): Difference => ({ check, on: ['dockerd'], reason: `Docker 20.10: ${reason}` })

export const differences: readonly Difference[] = [
  later('docker-py containers/wait_with_an_unknown_condition', 'takes any condition for not-running; since 23 it is 400'),
  later('docker-py images/a_bad_tag:upper_case', 'answers 500; since 23 it is 400'),
  later('docker-py images/a_bad_tag:bad_tag', 'answers 500; since 23 it is 400'),
  later('docker-py networks/refused:bad_subnet', 'answers 500; since 24 it is 400'),
  later('docker-py networks/refused:empty_name', 'answers 500; since 24 it is 400'),
  later('docker-py containers/unpause_needs_a_paused_one', 'answers 500; since 23 it is 409'),
  { check: 'docker-py options/inside:privileged_mounts', on: ['dockerd'], maybe: true, reason: 'runc asks for every capability, and a machine that is itself confined has not all to give' },
  later('dockerode containers/refused: a wrong type', 'answers 500; since 23 it is 400'),
  later('dockerode containers/refused: a port that is none', 'takes it, and fails at the start'),
  later('dockerode containers/refused: an unknown isolation', 'answers 500; since 23 it is 400'),
  later('dockerode containers/refused: a bind with a relative target', 'answers 500; since 23 it is 400'),
  later('dockerode containers/refused: a bind over the root', 'answers 500; since 23 it is 400'),
  later('dockerode containers/refused: a bind with an unknown mode', 'answers 500; since 23 it is 400'),
  later('dockerode containers/copy cannot write to a read-only root', 'answers 500; since 23 it is 400'),
  later('dockerode exec/a command that is not there', 'the exit code is 126; since 23 it is 127'),
  later('dockerode networks/refused: a gateway outside the subnet', 'answers 500; since 24 it is 400'),
  later('dockerode system/answers as Docker does: broken filters', 'answers 500; since 23 it is 400'),
  later('dockerode system/answers as Docker does: broken body', 'answers 500; since 23 it is 400'),
  later('dockerode system/answers as Docker does: no body', 'answers 500; since 23 it is 400'),
  later('dockerode exec/detach keys leave it running', 'ends an exec whose client leaves by the detach keys ("exec attach failed: … read escape sequence")'),
  { check: 'docker-py containers/attach_replays_the_log', on: ['dockerd'], maybe: true, reason: 'Docker 20.10 may not have the log of what has just ended yet' },
  { check: 'dockerode containers/copy tells what is no directory, and what is not there', on: ['dockerd'], reason: 'Docker answers 500 to a file that would lie below a file, in every version; 400 says whose mistake it is' },
  { check: 'dockerode containers/refused: a device that is not there', on: ['dockerd'], reason: 'Docker answers 500, in every version; 400 says whose mistake it is' },

  { check: 'docker-py options/network_host_is_the_hosts', on: ['vm'], reason: '`--network host` and `--network container:ID` are 400 in a VM, which has a network stack of its own.' },
  { check: 'docker-py options/network_of_another_container', on: ['vm'], reason: '`--network host` and `--network container:ID` are 400 in a VM, which has a network stack of its own.' },
  { check: 'docker-py options/inspected:runtime', on: ['vm'], reason: '`HostConfig.Runtime` is empty in the inspection of a VM: there is no OCI runtime to choose.' },
]
