import { badRequest, codeOf } from '../base/errors.js'
import { readFileInRoot } from '../host/paths.js'

/** A user as the runtime wants it. */
export interface ResolvedUser {
  uid: number
  gid: number
  /** Supplementary groups; the primary one is among them, first, as dockerd has it since CVE-2022-36109. */
  additionalGids: number[]
  /** '/' when there is no entry. */
  home: string
}

interface PasswdEntry {
  name: string
  uid: number
  gid: number
  home: string
}

interface GroupEntry {
  name: string
  gid: number
  members: string[]
}

/** Larger files are refused: nobody has so many users, and every start reads them. */
const MAX_FILE = 4 << 20
/** uids and gids are 32 bits, but Docker takes 31. */
const MAX_ID = 2 ** 31 - 1

/** Decimal digits only: Number() would also take ' 1', '1e3', '0x1'. */
function parseId(text: string): number | undefined {
  return /^\d{1,10}$/.test(text) ? Number(text) : undefined
}

/** /etc/passwd; lines that are not entries are skipped (passwd(5)). */
export function parsePasswd(text: string): PasswdEntry[] {
  const entries: PasswdEntry[] = []
  for (const line of text.split('\n')) {
    const [name, , uidText, gidText, , home] = line.trim().split(':')
    const [uid, gid] = [parseId(uidText ?? ''), parseId(gidText ?? '')]
    if (name === undefined || name === '' || name.startsWith('#') || uid === undefined || gid === undefined) continue
    entries.push({ name, uid, gid, home: home ?? '' })
  }
  return entries
}

/** /etc/group (group(5)). */
export function parseGroup(text: string): GroupEntry[] {
  const entries: GroupEntry[] = []
  for (const line of text.split('\n')) {
    const [name, , gidText, members] = line.trim().split(':')
    const gid = parseId(gidText ?? '')
    if (name === undefined || name === '' || name.startsWith('#') || gid === undefined) continue
    entries.push({ name, gid, members: (members ?? '').split(',').filter(Boolean) })
  }
  return entries
}

const noUser = (name: string) => badRequest(`unable to find user ${name}: no matching entries in passwd file`)
const noGroup = (name: string) => badRequest(`unable to find group ${name}: no matching entries in group file`)

function checked(id: number, what: string): number {
  if (id > MAX_ID) throw badRequest(`${what}s must be in range 0-${MAX_ID}`)
  return id
}

function findGroup(name: string, groups: readonly GroupEntry[]): number {
  const id = parseId(name)
  const found = groups.find((group) => group.name === name || group.gid === id)
  if (found) return checked(found.gid, 'gid')
  if (id === undefined) throw noGroup(name)
  return checked(id, 'gid')
}

/**
 * Docker's rules (moby/sys/user GetExecUser): the first entry in the file that has the name or the number, numbers need no entry, a named group replaces both
 * primary and supplementary ones. `user` is '', 'name', 'uid', 'name:group', 'uid:gid', ':group'.
 */
export function resolveUser(user: string, groupAdd: readonly string[], passwd: readonly PasswdEntry[], groups: readonly GroupEntry[]): ResolvedUser {
  const colon = user.indexOf(':')
  const [userPart, groupPart] = colon < 0 ? [user, ''] : [user.slice(0, colon), user.slice(colon + 1)]
  const id = userPart === '' ? 0 : parseId(userPart)
  const entry = passwd.find((candidate) => candidate.uid === id || (userPart !== '' && candidate.name === userPart))
  if (!entry && id === undefined) throw noUser(userPart)
  const uid = checked(entry?.uid ?? id!, 'uid')
  let gid = checked(entry?.gid ?? 0, 'gid')
  let supplementary: number[] = []
  if (groupPart !== '') gid = findGroup(groupPart, groups)
  else if (entry) supplementary = groups.filter((group) => group.members.includes(entry.name)).map((group) => checked(group.gid, 'gid'))
  const additional = groupAdd.map((name) => findGroup(name, groups))
  return { uid, gid, additionalGids: [...new Set([gid, ...supplementary, ...additional])], home: entry?.home || '/' }
}

async function readDatabase(root: string, path: string): Promise<string> {
  try {
    return (await readFileInRoot(root, path, MAX_FILE)).toString('utf8')
  } catch (error) {
    const code = codeOf(error)
    if (code === 'EFBIG') throw badRequest(`the container's ${path} is larger than ${MAX_FILE} bytes`, error)
    // None, or not a file (a FIFO, a device, a loop): no entries. Numbers need none.
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'EISDIR' || code === 'EINVAL' || code === 'ENXIO' || code === 'EACCES') return ''
    throw error
  }
}

/** Resolves against the /etc/passwd and /etc/group of the tree at `root`, which is hostile. 400 in Docker's words. */
export async function resolveUserIn(root: string, user: string, groupAdd: readonly string[]): Promise<ResolvedUser> {
  const [passwd, group] = await Promise.all([readDatabase(root, '/etc/passwd'), readDatabase(root, '/etc/group')])
  return resolveUser(user, groupAdd, parsePasswd(passwd), parseGroup(group))
}
