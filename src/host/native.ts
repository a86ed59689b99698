import { createRequire } from 'node:module'

/**
 * The system calls that Node.js does not offer, from `native/*.c` (built by `make -C native` to build/hull.node).
 * Only `src/host` imports this file. Failed calls throw an `Error` with `code` ('ENOENT'), `errno` and `syscall`,
 * as Node's own do; bad arguments throw TypeError or RangeError. Every descriptor is opened O_CLOEXEC. Calls that return a promise run on a
 * thread of their own.
 */
export interface Native {
  // mounts -------------------------------------------------------------------------------------------
  /** mount(2). `flags` are MS_* bits. */
  mount(source: string, target: string, fstype: string, flags: number, data: string): void
  /** mount(2) with the working directory set to `cwd` for the call alone (its own thread, CLONE_FS), so that
   *  relative paths in overlay options stay under the page-size limit of mount data. */
  mountAt(cwd: string, source: string, target: string, fstype: string, flags: number, data: string): Promise<void>
  /** umount2(2). `flags` are MNT_* / UMOUNT_* bits. */
  umount(target: string, flags: number): void
  /** The same on a thread: an overlay's end writes its upper file system's dirty pages to the disk first, which may take seconds. */
  umountAsync(target: string, flags: number): Promise<void>
  /** mount_setattr(2): MOUNT_ATTR_* bits to set and to clear, on `target` alone or on all mounts below it too. */
  mountSetattr(target: string, set: number, clear: number, recursive: boolean): void

  /** A detached clone of the directory `source`, idmapped by the user namespace file `userns` (mount_setattr(2), MOUNT_ATTR_IDMAP) with the
   *  MOUNT_ATTR_* bits `set`, mounted on `target`. */
  idmapMount(source: string, target: string, userns: string, set: number): Promise<void>

  // user namespaces ---------------------------------------------------------------------------------------
  /** A new user namespace with these lines of uid_map and gid_map, kept alive by a bind mount on `path` (the file is made). {@link netnsDelete} frees it. */
  usernsCreate(path: string, uids: string, gids: string): Promise<void>
  /** {@link netnsCreate}, owned by the user namespace that is mounted on the file `userns`. */
  netnsCreateOwned(path: string, userns: string): Promise<void>

  // paths below a root that somebody else controls --------------------------------------------------------
  /** openat2(2) of `path` with RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS against the directory `root`: symbolic links
   *  resolve as they would after chroot(root). Returns the descriptor. */
  openInRoot(root: string, path: string, flags: number, mode: number): number

  /** Removes a tree, or nothing when there is none: unlink(2) and rmdir(2), no link followed, no mount entered (fts(3)). ENAMETOOLONG: it is too deep. */
  removeTree(path: string): Promise<void>
  /** Writes `text` (UTF-8, no NUL) to `temporary`, made with `mode`, and renames it to `path`: open(2), write(2), rename(2), no fsync. On failure `temporary` is gone. */
  replaceFile(path: string, temporary: string, text: string, mode: number): Promise<void>

  // network ----------------------------------------------------------------------------------------------
  /** A new network namespace with `lo` up, kept alive by a bind mount on `path` (the file is made). */
  netnsCreate(path: string): Promise<void>
  /** Detaches and unlinks what {@link netnsCreate} made. No error when it is gone. */
  netnsDelete(path: string): void
  /** Creates a bridge and brings it up. EEXIST when the name is taken. */
  bridgeCreate(name: string): void
  /** Deletes any link. No error when it is gone. */
  linkDelete(name: string): void
  /** The same on a thread: the kernel waits 15-40 ms for all CPUs to forget a link. */
  linkDeleteAsync(name: string): Promise<void>
  /** Sets administrative state, MTU (0: leave), hardware address ('' : leave). */
  linkSet(name: string, up: boolean, mtu: number, mac: string): void
  /** The link's IPv4 addresses become this one. Left untouched when it has it already. */
  addressSet(name: string, address: string, prefixLength: number): void
  /** Makes a link a port of a bridge (IFLA_MASTER). */
  bridgeAddPort(bridge: string, name: string): void
  /** A veth pair: `name` stays here, the peer is made inside the namespace at `netns` with the name `peer`. With `bridge`, `name` is born
   *  up and as that bridge's port, in the same request. `mtu` 0: the kernel's default. */
  vethCreate(name: string, peer: string, netns: string, mtu: number, bridge?: string): Promise<void>
  /** Inside the namespace at `netns`: set MAC and IPv4 address on `name`, bring it up, default route via `gateway` ('' : none). */
  netnsConfigure(netns: string, name: string, mac: string, address: string, prefixLength: number, gateway: string): Promise<void>
  /** Inside the namespace at `netns`: adds an IPv6 address to `name`, without duplicate address detection. No error when it has it. */
  netnsAddress6(netns: string, name: string, address: string, prefixLength: number): Promise<void>
  /** Inside the namespace: the default routes by `name` are these two; '' : none by it. */
  netnsRoute(netns: string, name: string, gateway: string, gateway6: string): Promise<void>
  /** Deletes a link inside the namespace. No error when it is gone. */
  netnsLinkDelete(netns: string, name: string): Promise<void>
  /** A link is no port of any bridge any more. */
  bridgeRemovePort(name: string): void
  /** Frames from this port do not reach other ports of this kind (IFLA_BRPORT_ISOLATED). */
  bridgeIsolatePort(name: string): void
  /** A macvlan in source mode: what comes in by `lower` from `mac` comes out of `name`, up and a port of `bridge`; towards `lower` goes what is for `mac`
   *  and what is for everybody. EBUSY while `lower` is itself a bridge's port. */
  macvlanSourceCreate(name: string, lower: string, bridge: string, mac: string): void
  /** Adds an IPv6 address to a link of ours, without duplicate address detection. */
  address6Add(name: string, address: string, prefixLength: number): void
  /** Opens a tap device with IFF_NO_PI | IFF_VNET_HDR (not persistent: it lives as long as the descriptor or a dup of it). */
  tapOpen(name: string): number
  /** The same in a network namespace that has nothing else, and ends with it: nobody is at the other end. */
  tapOpenAlone(): Promise<number>

  // streams that Node cannot read -------------------------------------------------------------------------
  /** Connects to a SOCK_STREAM socket, has said `first` (at most 64 bytes) when it returns, and returns the descriptor. Paths longer than sun_path work (connect by /proc/self/fd). EAGAIN: more are waiting than it has room for. */
  connectSaying(path: string, first: Uint8Array): number
  /** Listens on `socketPath` (already when the call returns its promise: start the runtime then), waits (at most `timeoutMs`) for one SCM_RIGHTS message as OCI runtimes send to --console-socket, unlinks the path,
   *  and returns the pseudo-terminal's master. */
  receiveConsole(socketPath: string, timeoutMs: number): Promise<number>
  /** Bridges a pseudo-terminal master to a SOCK_STREAM socketpair on a thread and returns our end. EIO from the master is end of
   *  file. The master itself is not closed (resize needs it). */
  bridgePty(master: number): number
  /**
   * A listening SOCK_STREAM socket and the only client that it will ever have, connected already: [listener, client]. `path` names it for that moment and is unlinked again: it
   * must lie in a directory that nobody else can reach.
   */
  listenConnected(path: string): [listener: number, client: number]
  /** TIOCSWINSZ. */
  ttyResize(fd: number, rows: number, columns: number): void

  // memory ---------------------------------------------------------------------------------------------------
  /** A memfd with the contents of a file (its holes stay holes), sealed against writing, growing, shrinking and further seals (memfd_create(2), F_ADD_SEALS): who maps
   *  it privately has pages of his own as he writes, and nobody can change it for the others. */
  sealedCopy(path: string, program: boolean): Promise<number>
  /** A memfd with the contents of another one, to be written to, sealed against a change of its size. `from` may be closed at once; its offset moves. */
  ownCopy(from: number): Promise<number>
  /** malloc_trim(3): what the C library's heap has free goes back to the kernel. */
  trimHeap(): void
  timeStamp(): [counter: bigint, nanoseconds: bigint] | undefined

  // processes -----------------------------------------------------------------------------------------------
  /** kill(2) that tells whether the process was there (false: ESRCH). */
  kill(pid: number, signal: number): boolean
  /** posix_spawn(3) in a new session, with all signals at their defaults: `fds[N]` is the child's descriptor N, and it has no other. Returns its pid, to be reaped with {@link waitpid}. */
  spawn(file: string, args: string[], env: string[], cwd: string, fds: number[]): number
  /** waitpid(2), WNOHANG: undefined while the child runs; its exit code, or the signal that ended it as a negative number. ECHILD: not our child, or reaped. */
  waitpid(pid: number): number | undefined
  /** The same by pidfd_send_signal(2), only if the process's start time (/proc/PID/stat, field 22) is `startTime`: no race with
   *  the reuse of pids. False: it is gone, or another has its number. */
  killIf(pid: number, startTime: number, signal: number): boolean
  /** A descriptor's close-on-exec bit is cleared or set. */
  setCloexec(fd: number, on: boolean): void
  /** pipe2(2): [read end, write end]. For children whose stdio must be pipes: those of Node's spawn are sockets, which /dev/stdout cannot open. */
  pipe(): [read: number, write: number]
  /** flock(2) LOCK_EX | LOCK_NB on a descriptor: false when another holds it. */
  tryLock(fd: number): boolean
  /** Version of the kernel's Landlock ABI; 0: none. */
  landlockVersion(): number
}

const require = createRequire(import.meta.url)
/** The loaded addon. `build/hull.node` lies two folders above `dist/host` and `src/host`. */
export const native: Native = require('../../build/hull.node') as Native
