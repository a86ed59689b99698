import { rlimitPowers } from '../../host/rlimit.js'
import { defaultSeccomp, type SeccompConfig } from '../../oci/seccomp.js'
import type { OciConfig, OciMount } from '../../oci/spec-types.js'
import { FILE_SERVER_PATHS } from './fileserver-parts.js'
import type { JailLimits } from './resources.js'
import type { Share } from './shares.js'

/**
 * What serving files of all owners takes: in a user namespace of its own these hold for files alone, since the namespace owns nothing else. SYS_CHROOT and SETPCAP are for its own
 * start; it gives them up. MKNOD makes no devices there (the kernel wants it of the host's namespace), but virtiofsd insists on it.
 */
const CAPABILITIES = ['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_SETGID', 'CAP_SETUID', 'CAP_MKNOD', 'CAP_SETFCAP', 'CAP_SYS_CHROOT', 'CAP_SETPCAP']

/** Calls of the default profile that a file server has no use for. */
const REFUSED = new Set(
  `ptrace process_vm_readv process_vm_writev process_mrelease pidfd_open pidfd_send_signal kill tkill
  fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
  ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd
  semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
  socketpair connect bind listen sendto sendmmsg recvfrom recvmmsg recvmmsg_time64 name_to_handle_at open_by_handle_at
  adjtimex clock_adjtime clock_adjtime64 memfd_secret remap_file_pages vmsplice execveat modify_ldt personality`.split(/\s+/),
)
/** unshare(2) of the working directory alone: virtiofsd's threads do it for extended attributes. No new namespaces. */
const CLONE_FS = 0x200
const EPERM = 1

/** Hull's default profile without sockets, other processes, watches, System V and clocks; virtiofsd's own, narrower filter comes on top. */
export function fileServerSeccomp(): SeccompConfig {
  const base = defaultSeccomp(CAPABILITIES)
  const syscalls = base.syscalls.flatMap((rule) => {
    if (rule.names.includes('socket')) return []
    const names = rule.names.filter((name) => !REFUSED.has(name) && name !== 'unshare')
    return names.length > 0 ? [{ ...rule, names }] : []
  })
  syscalls.push({ names: ['unshare'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: CLONE_FS, op: 'SCMP_CMP_EQ' }] })
  const ruled = new Set(syscalls.flatMap((rule) => rule.names))
  syscalls.push({ names: [...REFUSED, 'socket'].filter((name) => !ruled.has(name)), action: 'SCMP_ACT_ERRNO', errnoRet: EPERM })
  return { ...base, syscalls }
}

/** What a file server's jail is made from. */
export interface FileServerJail {
  /** fileserver-parts.ts */
  root: string
  args: string[]
  /** Directory with an empty directory or file for each share by its index: the server's whole world before the shares are bound over them. */
  skeleton: string
  shares: readonly Share[]
  hostname: string
  cgroupsPath: string
  /** bytes of guest RAM: the server's pages of it may be charged to the server. */
  ram: number
  limits: JailLimits
  rootfsPropagation: string | undefined
}

function bindShare(share: Share): OciMount {
  const words = share.options
  const recursive = !words.includes('nonrecursive')
  const readOnly = share.file || !recursive || words.includes('ro-nonrecursive') ? 'ro' : 'rro'
  const slave = words.some((word) => /^r?slave$/.test(word))
  // crun 1.8 drops the plain words beside `rbind`, and cannot do the recursive ones on a file.
  const quiet = share.file ? ['nosuid', 'nodev', 'noexec'] : ['rnosuid', 'rnodev', 'rnoexec']
  return {
    destination: `${FILE_SERVER_PATHS.shares}/${share.index}`, source: share.source, type: 'bind',
    // Read-only is decided here, by the host's kernel. No device of a shared directory is opened, nothing in it is run by the server.
    options: [recursive ? 'rbind' : 'bind', slave ? 'rslave' : 'rprivate', ...quiet, ...(share.readOnly ? [readOnly] : [])],
  }
}

/**
 * The OCI runtime spec of the container around a VM's file server: every namespace new, the user namespace too. Its ids are the host's, so that files have their owners,
 * but its capabilities are worth nothing outside: it is root over the files that it can see, and those are the shares. No network, no sockets, a read-only root that holds
 * the program and its libraries.
 */
export function fileServerConfig(jail: FileServerJail): OciConfig {
  const all = { containerID: 0, hostID: 0, size: 4294967295 }
  const powers = rlimitPowers()
  const files = Math.min(powers.limits.get('nofile')?.hard ?? 1024, powers.maxFiles, 1 << 20)
  return {
    ociVersion: '1.0.2',
    hostname: jail.hostname,
    root: { path: jail.root, readonly: true },
    process: {
      terminal: false,
      user: { uid: 0, gid: 0, umask: 0 },
      args: jail.args,
      env: ['PATH=/'],
      cwd: '/',
      capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES, inheritable: [], ambient: [] },
      noNewPrivileges: true,
      // It holds a descriptor for each file that the guest knows.
      rlimits: [{ type: 'RLIMIT_CORE', soft: 0, hard: 0 }, { type: 'RLIMIT_NOFILE', soft: files, hard: files }],
    },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'noexec', 'strictatime', 'mode=755', 'size=64k'] },
      { destination: FILE_SERVER_PATHS.shares, type: 'bind', source: jail.skeleton, options: ['bind', 'rprivate', 'nosuid', 'nodev', 'noexec', 'ro'] },
      ...jail.shares.map(bindShare),
    ],
    linux: {
      namespaces: ['pid', 'mount', 'ipc', 'uts', 'network', 'cgroup', 'user'].map((type) => ({ type })),
      uidMappings: [all],
      gidMappings: [all],
      cgroupsPath: jail.cgroupsPath,
      ...(jail.rootfsPropagation ? { rootfsPropagation: jail.rootfsPropagation } : {}),
      resources: {
        devices: [{ allow: false, access: 'rwm' }, { allow: true, type: 'c', major: 1, minor: 3, access: 'rw' }],
        memory: { limit: jail.ram + (256 << 20) },
        cpu: jail.limits.cpu,
        pids: { limit: 64 },
      },
      seccomp: fileServerSeccomp(),
    },
  }
}
