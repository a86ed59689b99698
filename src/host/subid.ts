/** A range of subordinate ids: ids `first` to `first + count - 1` of the host may be used by one user's namespaces. */
export interface IdRange {
  first: number
  count: number
}

/** Ranges of a user (by name or by number) in the text of /etc/subuid or /etc/subgid, in the file's order (subuid(5)). Malformed lines are skipped. */
export function parseSubids(text: string, names: readonly string[]): IdRange[] {
  const ranges: IdRange[] = []
  for (const line of text.split('\n')) {
    const match = /^([^:#\s][^:]*):(\d{1,10}):(\d{1,10})\s*$/.exec(line)
    if (!match || !names.includes(match[1]!)) continue
    const range = { first: Number(match[2]), count: Number(match[3]) }
    // 2^32 - 1 is "no id" (user_namespaces(7)); id 0 of the host is what remapping is there to keep out.
    if (range.count > 0 && range.first > 0 && range.first + range.count <= 0xffff_ffff) ranges.push(range)
  }
  return ranges
}

/** One line of uid_map: ids from `containerId` on are ids from `hostId` on. */
export interface IdMapping {
  containerId: number
  hostId: number
  count: number
}

/** The ids of a user namespace. */
export interface IdMap {
  uids: IdMapping[]
  gids: IdMapping[]
}

/** Ranges laid end to end from container id 0 on (moby idtools.createIDMap). */
export function layOut(ranges: readonly IdRange[]): IdMapping[] {
  let containerId = 0
  return ranges.map(({ first, count }) => {
    const mapping = { containerId, hostId: first, count }
    containerId += count
    return mapping
  })
}

/** The text of /proc/PID/uid_map. */
export const mapText = (mappings: readonly IdMapping[]): string => mappings.map((m) => `${m.containerId} ${m.hostId} ${m.count}\n`).join('')

/** The host's id of a container's id; undefined when it has none there. */
export function toHost(mappings: readonly IdMapping[], id: number): number | undefined {
  const found = mappings.find((m) => id >= m.containerId && id < m.containerId + m.count)
  return found && found.hostId + (id - found.containerId)
}
