import { mkdir, readFile, rmdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { messageOf } from '../base/errors.js'
import { readIfExists } from '../base/files.js'
import { runOk } from '../base/run.js'
import { unmount } from '../host/mount.js'
import { layOut, parseSubids, type IdMap, type IdRange } from '../host/subid.js'
import { ensureUserns, idmapMount } from '../host/userns.js'

/** The user that `--userns-remap default` means, by Docker's name: where dockerd has made it, both engines use the same ids. */
const defaultUser = 'dockremap'
/** Ids that useradd(8) gives a user by default, and where it begins (login.defs(5), SUB_UID_COUNT and SUB_UID_MIN). */
const rangeSize = 65_536
const firstRange = 100_000

interface Account {
  name: string
  id: string
}

/** A line of /etc/passwd or /etc/group, by name or by number. */
async function account(file: string, wanted: string): Promise<Account | undefined> {
  for (const line of (await readFile(file, 'utf8')).split('\n')) {
    const [name = '', , id = ''] = line.split(':')
    if (name !== '' && (name === wanted || id === wanted)) return { name, id }
  }
  return undefined
}

async function ranges(file: string, who: Account): Promise<IdRange[]> {
  return parseSubids((await readIfExists(file)) ?? '', [who.name, who.id])
}

/** The end of every range in the texts: ids from there on are nobody's. */
export function firstFree(...texts: string[]): number {
  const ends = texts.flatMap((text) => [...text.matchAll(/^[^#\s][^:]*:(\d{1,10}):(\d{1,10})\s*$/gm)].map((match) => Number(match[1]) + Number(match[2])))
  return Math.max(firstRange, ...ends)
}

/** Makes `dockremap` with a range of its own, as dockerd does. Harmless when parts of it are there. */
async function makeDefaultUser(): Promise<void> {
  if (!(await account('/etc/passwd', defaultUser))) await runOk('useradd', ['--system', '--no-create-home', '--home-dir', '/nonexistent', '--shell', '/usr/sbin/nologin', '--user-group', defaultUser])
  const texts = await Promise.all(['/etc/subuid', '/etc/subgid'].map(async (file) => (await readIfExists(file)) ?? ''))
  const has = texts.map((text) => parseSubids(text, [defaultUser]).length > 0)
  const range = (text: string) => `${firstFree(text)}-${firstFree(text) + rangeSize - 1}`
  if (!has[0]) await runOk('usermod', ['--add-subuids', range(texts[0]!), defaultUser])
  if (!has[1]) await runOk('usermod', ['--add-subgids', range(texts[1]!), defaultUser])
}

/**
 * The ids that `--userns-remap` means: `default`, or USER[:GROUP] by name or number, from /etc/subuid and /etc/subgid (dockerd's rules and
 * words). Rejects when there is no such user or range.
 */
export async function resolveRemap(option: string): Promise<IdMap> {
  const [user = '', group = ''] = option === 'default' ? [defaultUser] : option.split(':')
  if (user === '' || option.split(':').length > 2) throw new Error(`--userns-remap ${option}: want default, USER, UID, USER:GROUP or UID:GID`)
  if (option === 'default') await makeDefaultUser()
  const owner = await account('/etc/passwd', user)
  if (!owner) throw new Error(`--userns-remap ${option}: there is no user ${user}`)
  const owners = await account('/etc/group', group || owner.name)
  if (!owners) throw new Error(`--userns-remap ${option}: there is no group ${group || owner.name}`)
  const [uids, gids] = await Promise.all([ranges('/etc/subuid', owner), ranges('/etc/subgid', owners)])
  if (uids.length === 0) throw new Error(`Can't create ID mappings: No subuid ranges found for user "${owner.name}"`)
  if (gids.length === 0) throw new Error(`Can't create ID mappings: No subgid ranges found for group "${owners.name}"`)
  return { uids: layOut(uids), gids: layOut(gids) }
}

/** Makes the namespace and tries the mapped mount that every start needs: what this host cannot do is said when the daemon starts, not at the first container. */
export async function checkRemap(map: IdMap, dataRoot: string, execRoot: string): Promise<void> {
  for (const root of [dataRoot, execRoot]) {
    for (let path = root; path !== '/'; path = dirname(path)) {
      if (!((await stat(path)).mode & 0o001)) throw new Error(`--userns-remap: ${path} may not be entered by other users (chmod o+x), so containers' root, who is one, would not reach ${root}`)
    }
  }
  const userns = await ensureUserns(execRoot, map).catch((error: unknown) => {
    throw new Error(`--userns-remap: the kernel gives no user namespace with these ids: ${messageOf(error)}`)
  })
  const [source, target] = ['.idmap-source', '.idmap-target'].map((name) => join(dataRoot, name)) as [string, string]
  try {
    await Promise.all([source, target].map((path) => mkdir(path, { recursive: true, mode: 0o700 })))
    await idmapMount(source, target, userns)
    unmount(target)
  } catch (error) {
    throw new Error(`--userns-remap: owners of files below ${dataRoot} cannot be mapped (needs Linux 5.19 and ext4, xfs, btrfs or another file system that takes MOUNT_ATTR_IDMAP): ${messageOf(error)}`)
  } finally {
    await Promise.all([source, target].map((path) => rmdir(path).catch(() => {})))
  }
}
