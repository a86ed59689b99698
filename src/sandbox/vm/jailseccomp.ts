import { defaultSeccomp, type SeccompConfig } from '../../oci/seccomp.js'

/**
 * System calls of the default profile that neither the supervisor nor QEMU has a use for, and that would help a VMM that has been taken
 * over: other processes' memory, identities, devices and links (a symbolic link in the VM's directory is a trap for the daemon), System V and
 * message queues, extended attributes, watches, clocks.
 */
const NOT_IN_A_JAIL = new Set(
  `ptrace process_vm_readv process_vm_writev process_mrelease pidfd_open pidfd_send_signal
  setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid
  setfsgid32 setgroups setgroups32 capset
  chown chown32 fchown fchown32 fchownat lchown lchown32 mknod mknodat link linkat symlink symlinkat name_to_handle_at
  setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr setxattrat removexattrat getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr
  flistxattr listxattrat
  fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
  ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd
  semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
  adjtimex clock_adjtime clock_adjtime64 memfd_secret remap_file_pages vmsplice execveat modify_ldt personality`.split(/\s+/),
)

/** AF_UNIX, the only socket family of a jail: ctl.sock and the pair to QEMU. The tap is a descriptor that is already open. */
const AF_UNIX = 1
const EPERM = 1

/**
 * The seccomp profile of the container around supervisor and VMM: Hull's default for a container without capabilities, less all of the
 * above. An allow list cut to what one QEMU version calls would break with the next; QEMU's own filter (`-sandbox`) comes on top.
 */
export function jailSeccomp(): SeccompConfig {
  const base = defaultSeccomp([])
  const syscalls = base.syscalls.flatMap((rule) => {
    if (rule.names.includes('socket')) return [] // its own rule below
    if (rule.action !== 'SCMP_ACT_ALLOW') return [rule]
    const names = rule.names.filter((name) => !NOT_IN_A_JAIL.has(name))
    return names.length > 0 ? [{ ...rule, names }] : []
  })
  syscalls.push({ names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: AF_UNIX, op: 'SCMP_CMP_EQ' }] })
  // Known and refused is EPERM; what nobody knows stays ENOSYS. libseccomp refuses a second rule for the same call (EEXIST).
  const ruled = new Set(syscalls.flatMap((rule) => rule.names))
  syscalls.push({ names: [...NOT_IN_A_JAIL].filter((name) => !ruled.has(name)), action: 'SCMP_ACT_ERRNO', errnoRet: EPERM })
  return { ...base, syscalls }
}
