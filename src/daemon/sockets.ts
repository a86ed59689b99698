import { chmod, chown, rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { readIfExists } from '../base/files.js'
import { log } from '../base/log.js'

/** gid of a group by name; undefined when there is none (group(5)). */
async function groupId(name: string): Promise<number | undefined> {
  const text = (await readIfExists('/etc/group')) ?? ''
  const line = text.split('\n').find((row) => row.startsWith(`${name}:`))
  return line === undefined ? undefined : Number(line.split(':')[2])
}

/** Whether somebody listens on a unix socket. */
function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

/**
 * Binds a server to a unix socket that only root and `group` may use (mode 0660; 0600 where the group does not exist). A socket that a killed
 * daemon left is replaced, one that answers is not.
 */
export async function listenUnix(server: Server, path: string, group: string): Promise<void> {
  if (await isAlive(path)) throw new Error(`something listens on ${path} already`)
  await rm(path, { force: true })
  // The umask closes the moment between bind and chmod.
  const before = process.umask(0o177)
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      // A burst of clients waits in the queue instead of getting EAGAIN.
      server.listen({ path, backlog: 4096 }, () => {
        server.off('error', reject)
        resolve()
      })
    })
  } finally {
    process.umask(before)
  }
  const gid = await groupId(group)
  if (gid === undefined) {
    log.warn('the group does not exist: only root can use the socket', { group, path })
    return
  }
  await chown(path, 0, gid)
  await chmod(path, 0o660)
}
