/**
 * Hull's default seccomp profile, as data. An allow list: a system call that stands nowhere here fails with ENOSYS, so that a libc
 * newer than this list falls back (EPERM would look like a refusal, and programs would give up). Calls that are known and refused
 * fail with EPERM.
 *
 * Every call allowed here is allowed by Docker's default profile as well. Refused beyond Docker's: io_uring (CVEs by the dozen, and its
 * operations pass no filter), socket families other than the everyday ones (AF_ALG: CVE-2026-31431; AF_VSOCK: the hypervisor), and
 * 32-bit programs on x86 (see ARCHITECTURES in seccomp.ts).
 */

/** Calls that every program may make. */
export const ALLOWED: Record<string, string> = {
  files: `access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fadvise64_64
    fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
    ftruncate ftruncate64 getcwd getdents getdents64 ioctl lchown lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat newfstatat
    open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat renameat2
    rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64
    umask unlink unlinkat vmsplice write writev name_to_handle_at cachestat`,
  times: 'futimesat utime utimensat utimensat_time64 utimes',
  attributes: `fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr removexattr setxattr
    getxattrat setxattrat listxattrat removexattrat`,
  watches: `fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch`,
  polling: `epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 _newselect poll
    ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 pipe pipe2`,
  asynchronousIo: 'io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get ioprio_set',
  memory: `brk madvise membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap
    pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages map_shadow_stack`,
  processes: `execve execveat exit exit_group fork vfork wait4 waitid waitpid getpgid getpgrp getpid getppid getsid gettid setpgid setsid pause prctl
    restart_syscall rseq set_robust_list get_robust_list set_thread_area get_thread_area set_tid_address pidfd_open pidfd_send_signal getcpu
    sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield getpriority setpriority
    getrlimit setrlimit prlimit64 ugetrlimit getrusage times sysinfo uname`,
  tracing: 'process_vm_readv process_vm_writev ptrace', // as Docker since Linux 4.8, when ptrace stopped being a way around seccomp
  threads: 'futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue',
  signals: `alarm kill tgkill tkill rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn`,
  clocks: `adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
    getitimer setitimer gettimeofday nanosleep time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64`,
  network: `accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg send sendmmsg
    sendmsg sendto setsockopt shutdown`,
  interprocess: `ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget
    msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget`,
  identity: `capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid getresuid32 getuid
    getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setuid setuid32`,
  entropy: 'getrandom',
  selfRestraint: 'landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp',
}

/** Calls of one architecture, by Node's process.arch. */
export const ALLOWED_ON: Record<string, string> = {
  x64: 'arch_prctl modify_ldt',
  arm64: 'arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls',
}

/** Calls that come with a capability; refused with EPERM without it. */
export const ALLOWED_WITH: readonly (readonly [capability: string, calls: string])[] = [
  ['CAP_DAC_READ_SEARCH', 'open_by_handle_at'],
  ['CAP_SYS_ADMIN', `bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree perf_event_open
    quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare clone clone3`],
  ['CAP_SYS_BOOT', 'reboot'],
  ['CAP_SYS_CHROOT', 'chroot'],
  ['CAP_SYS_MODULE', 'delete_module finit_module init_module'],
  ['CAP_SYS_PACCT', 'acct'],
  ['CAP_SYS_PTRACE', 'kcmp pidfd_getfd process_madvise'],
  ['CAP_SYS_RAWIO', 'iopl ioperm'],
  ['CAP_SYS_TIME', 'settimeofday stime clock_settime clock_settime64'],
  ['CAP_SYS_TTY_CONFIG', 'vhangup'],
  ['CAP_SYS_NICE', 'get_mempolicy mbind set_mempolicy set_mempolicy_home_node'],
  ['CAP_SYSLOG', 'syslog'],
  ['CAP_BPF', 'bpf'],
  ['CAP_PERFMON', 'perf_event_open'],
]

/** Refused with EPERM whatever the capabilities: no container needs them, and each has been a way out of one. */
export const REFUSED = `add_key keyctl request_key userfaultfd io_uring_setup io_uring_enter io_uring_register kexec_load kexec_file_load
  nfsservctl pivot_root swapon swapoff sysfs _sysctl uselib ustat vm86 vm86old move_pages migrate_pages
  create_module get_kernel_syms query_module afs_syscall vserver security tuxcall putpmsg getpmsg`

/** Socket families (sys/socket.h) that socket(2) makes: UNIX, INET, INET6, NETLINK, PACKET (which needs CAP_NET_RAW besides). */
export const SOCKET_FAMILIES: readonly number[] = [1, 2, 10, 16, 17]
/** With CAP_NET_ADMIN: KEY (IPsec), XDP. */
export const SOCKET_FAMILIES_NET_ADMIN: readonly number[] = [15, 44]

/** personality(2): Linux and 32-bit Linux, with or without UNAME26, and the query. Nothing that turns off address randomization. */
export const PERSONALITIES: readonly number[] = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff]

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (linux/sched.h). CLONE_NEWTIME is a signal number in clone's flags. */
export const CLONE_NEW: readonly number[] = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]
