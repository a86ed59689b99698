import { defaultSeccomp, type SeccompArgument, type SeccompConfig, type SeccompRule } from '../../oci/seccomp.js'
import { CLONE_NEW } from '../../oci/seccomp-profile.js'

/**
 * The seccomp profile of the container around supervisor and VMM: an allow list of what the two were seen to call (strace of every way in which a machine lives and ends,
 * docs/decisions/0014-jail.md), of what KVM and QEMU's file and memory code need beyond that, and of the harmless siblings that another libc takes for the same thing.
 * What stands nowhere fails with ENOSYS: a newer libc falls back, and QEMU's last words ("Function not implemented") name the cause. Another architecture's calls kill.
 */
const ALLOWED: Record<string, string> = {
  files: `read write readv writev pread64 pwrite64 preadv pwritev lseek open openat close close_range dup dup2 dup3 fcntl access faccessat faccessat2
    stat fstat lstat newfstatat statx statfs fstatfs readlink readlinkat getdents64 chdir umask fadvise64`,
  // The disk: discard punches holes; newer QEMUs write through (RWF_DSYNC); a memory file gets its size.
  disk: 'fallocate ftruncate fsync fdatasync preadv2 pwritev2',
  // hull-vmm in its own directory: status.new becomes status, an old ctl.sock goes.
  directory: 'unlink unlinkat rename renameat',
  memory: 'mmap munmap mprotect mremap madvise brk membarrier memfd_create',
  threads: 'futex set_robust_list rseq set_tid_address gettid getpid sched_yield sched_getaffinity exit exit_group restart_syscall arch_prctl',
  // fork and execve: the supervisor starts QEMU. QEMU's own filter takes them away again.
  processes: 'fork vfork execve wait4 kill tgkill tkill',
  // rt_sigtimedwait and rt_sigpending: KVM's kicks of a virtual processor.
  signals: 'rt_sigaction rt_sigprocmask rt_sigpending rt_sigreturn rt_sigtimedwait sigaltstack signalfd4',
  waiting: 'poll ppoll pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd2 pipe2 nanosleep clock_nanosleep',
  clocks: 'clock_gettime clock_getres gettimeofday time sysinfo uname',
  // No connect: nobody in the jail has anybody to call.
  sockets: 'bind listen accept accept4 getsockname getpeername getsockopt setsockopt recvmsg recvfrom sendmsg shutdown',
  identity: 'getuid geteuid getgid getegid getrlimit',
  entropy: 'getrandom',
  // hull-vmm sets Landlock, QEMU its own filter.
  selfRestraint: 'landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp',
}

const EPERM = 1
const equal = (index: number, value: number): SeccompArgument => ({ index, value, op: 'SCMP_CMP_EQ' })
/** `(argument & mask) == value`. */
const masked = (index: number, mask: number, value: number): SeccompArgument => ({ index, value: mask, valueTwo: value, op: 'SCMP_CMP_MASKED_EQ' })
const allow = (name: string, ...args: SeccompArgument[]): SeccompRule => ({ names: [name], action: 'SCMP_ACT_ALLOW', args })
const refuse = (name: string, ...args: SeccompArgument[]): SeccompRule => ({ names: [name], action: 'SCMP_ACT_ERRNO', errnoRet: EPERM, args })

const AF_UNIX = 1
/** The kind in socket(2)'s type, beside SOCK_CLOEXEC and SOCK_NONBLOCK; a stream socket sends to nobody by address. */
const SOCK_TYPE_MASK = 0xf
const SOCK_STREAM = 1

/** prctl(2), linux/prctl.h: PDEATHSIG, GET_ and SET_DUMPABLE, SET_ and GET_NAME, SECCOMP (read and set), TIMERSLACK, MCE_KILL, NO_NEW_PRIVS (set, get), THP_DISABLE, VMA names. */
const PRCTL = [1, 3, 4, 15, 16, 21, 22, 29, 33, 38, 39, 41, 0x53564d41]

/** KVM's own ioctls (linux/kvm.h, KVMIO), on descriptors that only /dev/kvm gives. */
const KVM_TYPE = 0xae00
const IOCTL_TYPE_MASK = 0xff00
/**
 * ioctl(2): is it a terminal, how large (a C library's stdio asks); FIONBIO, FIONREAD, FIOCLEX, FIONCLEX; BLKSSZGET; of a tap that is attached already its size of header, offloads, send buffer, name and
 * features (linux/if_tun.h), not TUNSETIFF. No TIOCSTI, no TIOCLINUX.
 */
const IOCTL = [0x5401, 0x5413, 0x5421, 0x541b, 0x5451, 0x5450, 0x1268, 0x800454d2, 0x800454cf, 0x800454d7, 0x400454d8, 0x400454d0, 0x400454d4, 0x400454dc, 0x400454de]

/** `socket`: which families, kinds; `clone`: no new namespace; the rest as the lists above. */
function argumentRules(): SeccompRule[] {
  const namespaces = CLONE_NEW.reduce((sum, flag) => sum + flag, 0)
  return [
    allow('socket', equal(0, AF_UNIX), masked(1, SOCK_TYPE_MASK, SOCK_STREAM)),
    allow('socketpair', equal(0, AF_UNIX), masked(1, SOCK_TYPE_MASK, SOCK_STREAM)),
    ...['socket', 'socketpair'].map((name) => refuse(name, { index: 0, value: AF_UNIX, op: 'SCMP_CMP_NE' })),
    allow('sendto', equal(4, 0)), // send(2)
    allow('clone', masked(0, namespaces, 0)),
    ...CLONE_NEW.map((flag) => refuse('clone', masked(0, flag, flag))),
    // Reading one's own limits only.
    allow('prlimit64', equal(2, 0)),
    ...PRCTL.map((option) => allow('prctl', equal(0, option))),
    allow('ioctl', masked(1, IOCTL_TYPE_MASK, KVM_TYPE)),
    ...IOCTL.map((request) => allow('ioctl', masked(1, 0xffffffff, request))),
  ]
}

let built: SeccompConfig | undefined

/** The filter for hull-vmm and QEMU; QEMU's own (`-sandbox`) comes on top. Always the same object: do not change it. */
export function jailSeccomp(): SeccompConfig {
  const { defaultAction, defaultErrnoRet, architectures } = defaultSeccomp([])
  built ??= {
    defaultAction,
    ...(defaultErrnoRet === undefined ? {} : { defaultErrnoRet }),
    // The native one alone, without what the default has beside it.
    ...(architectures ? { architectures: architectures.slice(0, 1) } : {}),
    syscalls: [{ names: Object.values(ALLOWED).flatMap((names) => names.split(/\s+/)), action: 'SCMP_ACT_ALLOW' }, ...argumentRules()],
  }
  return built
}
