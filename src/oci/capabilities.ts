import { CAPABILITIES, capabilityNames } from '../base/capabilities.js'
import { badRequest } from '../base/errors.js'

/** What a container has when nobody says otherwise: Docker's set. */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  'CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID', 'SETFCAP', 'SETPCAP', 'NET_BIND_SERVICE', 'SYS_CHROOT',
  'KILL', 'AUDIT_WRITE',
]

function normalize(name: string, option: string): string {
  const upper = name.toUpperCase()
  const bare = upper.startsWith('CAP_') ? upper.slice(4) : upper
  if (bare !== 'ALL' && !CAPABILITIES.includes(bare as (typeof CAPABILITIES)[number])) throw badRequest(`invalid ${option}: unknown capability: "CAP_${bare}"`)
  return bare
}

/**
 * Docker's rules for --cap-add, --cap-drop and --privileged (moby oci/caps.TweakCapabilities): names with or without CAP_, any case, ALL.
 * `available` is what this daemon has itself, and so can give: the rest is left out, and named in `missing` when it was asked for.
 */
export function effectiveCapabilities(
  options: { privileged: boolean; add: readonly string[]; drop: readonly string[] },
  available: bigint,
): { capabilities: string[]; missing: string[] } {
  const add = options.add.map((name) => normalize(name, 'CapAdd'))
  const drop = options.drop.map((name) => normalize(name, 'CapDrop'))
  let wanted: readonly string[]
  if (options.privileged || add.includes('ALL')) wanted = options.privileged ? CAPABILITIES : CAPABILITIES.filter((name) => !drop.includes(name))
  else if (drop.includes('ALL')) wanted = add
  else wanted = [...DEFAULT_CAPABILITIES.filter((name) => !drop.includes(name)), ...add]
  const have = new Set(capabilityNames(available))
  const names = [...new Set(wanted)].map((name) => `CAP_${name}`)
  return {
    capabilities: names.filter((name) => have.has(name)),
    missing: add.filter((name) => name !== 'ALL' && !have.has(`CAP_${name}`)).map((name) => `CAP_${name}`),
  }
}
