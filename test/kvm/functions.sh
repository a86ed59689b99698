# Part of run.sh: which functions of the host's kernel run for a container, and for a VM (docs/decisions/0022-surface.md). Here the kernel lets them be traced, which those of clouds and containers seldom do.
surface=/usr/local/lib/hull/build/hull-surface
instances=/sys/kernel/tracing/instances
left() { ls $instances; }
check 'several emulated processors: refused, in words' 'emulated themselves.*code=1$' $surface functions 1 true
echo 0 > /sys/devices/system/cpu/cpu1/online # QEMU's emulation of several loses changes of code now and then: it would hang

without() { # SETTING VALUE BEFORE
  sysctl -qw "$1=$2"
  $surface functions $$ true
  local code=$?
  sysctl -qw "$1=$3"
  return $code
}
check 'a tracer that is switched off: refused, in words' 'switched off.*code=1$' without kernel.ftrace_enabled 0 1
check 'names that are hidden: refused, in words' 'hides the names.*code=1$' without kernel.kptr_restrict 2 1
compared() { hull compare --sections surface --isolation process,vm --format json box:1 > /tmp/surface.json; }
fact() { node -p "JSON.parse(require('fs').readFileSync('/tmp/surface.json', 'utf8')).sections.surface.facts[process.argv[1]][process.argv[2]]" "$1" "$2"; }
by_hand() { fact "$1" kernelFunctionsCommand | sed 's/--annotation [^ ]*//' > "/tmp/by-hand-$1.sh"; sh "/tmp/by-hand-$1.sh" 2> "/tmp/by-hand-$1.log" > "/tmp/functions-$1" || cat "/tmp/by-hand-$1.log"; } # docker 20.10 has no --annotation
has() { local list=$1; shift; for name; do grep -qx "$name" "$list" || echo "no $name"; done; }
has_not() { ! grep -m 3 -E "$2" "$1"; }
between() { local n; n=$(($1)) && echo "$n" && [ "$n" -ge "$2" ] && [ "$n" -le "$3" ]; }
check 'compare counts the functions of the host'\''s kernel' '^\|?code=0$' compared
say "functions: container $(fact process kernelFunctions), VM $(fact vm kernelFunctions)"
check 'a container'\''s are many' 'code=0$' between "$(fact process kernelFunctions)" 2000 6000
check 'a VM'\''s are fewer' 'code=0$' between "100 * $(fact vm kernelFunctions) / $(fact process kernelFunctions)" 10 80
check 'by hand: a container' '^\|?code=0$' by_hand process
check 'by hand: a VM' '^\|?code=0$' by_hand vm
say "by hand: container $(wc -l < /tmp/functions-process), VM $(wc -l < /tmp/functions-vm)"
check 'by hand it is the same figure' 'code=0$' between "100 * $(wc -l < /tmp/functions-process) / $(fact process kernelFunctions)" 95 105
check 'of a container: what it did' '^\|?code=0$' has /tmp/functions-process vfs_read vfs_rename ovl_open ext4_sync_file tcp_v4_rcv tcp_sendmsg unix_stream_connect udp_sendmsg veth_xmit do_exit bprm_execve futex_wake pipe_read do_epoll_wait hrtimer_nanosleep
check 'of a container: nothing of KVM' 'code=0$' has_not /tmp/functions-process '^(kvm_arch|svm|vmx)_'
check 'of a VM: its hypervisor'\''s' '^\|?code=0$' has /tmp/functions-vm kvm_arch_vcpu_ioctl_run svm_vcpu_run tun_get_user vfs_read
check 'of a VM: nothing of what its guest did' 'code=0$' has_not /tmp/functions-vm '^(tcp_v4_rcv|tcp_sendmsg|unix_stream_connect|veth_xmit|bprm_execve|vfs_rename)$'
check 'no trace is left' '^\|?code=0$' left

# The same process traced twice at once: by hull-surface out of the binary buffer, and as text (trace_pipe) by hand. What is only in one list is a function that interrupts call, too.
twice() {
  local mine=$instances/by-hand pid
  $surface exercise > /tmp/twice.out & pid=$!
  mkdir $mine
  echo 400000 > $mine/per_cpu/cpu0/buffer_size_kb # text is slow: all of it waits in there
  echo 1 > $mine/options/function-fork
  echo $pid > $mine/set_ftrace_pid
  echo function > $mine/current_tracer
  $surface functions $pid sh -c "kill -USR1 $pid; until grep -q done /tmp/twice.out; do sleep 0.1; done" 2>&1 > /tmp/twice.list
  echo 0 > $mine/tracing_on
  # "   exercise-123     [000] d.h1.   12.345678: name <-caller": the third of the flags is h or H in an interrupt, s in a soft one. It ends where the buffer does, since nothing comes any more.
  sed -nE 's/^.* \[[0-9]+\] ..([^hHsZz])[^ ]* +[0-9.]+: ([^ ]+) <-.*/\2/p; /LOST/p' $mine/trace_pipe | awk '!seen[$0]++' | sort > /tmp/twice.plain
  kill $pid
  wait $pid
  rmdir $mine
  sort -u /tmp/twice.list > /tmp/twice.names
  comm -13 /tmp/twice.plain /tmp/twice.names > /tmp/twice.here
  echo "plain $(wc -l < /tmp/twice.plain), only there $(comm -23 /tmp/twice.plain /tmp/twice.names | wc -l), only here $(wc -l < /tmp/twice.here), of these TCP $(grep -c tcp /tmp/twice.here), lost $(grep -c LOST /tmp/twice.plain)"
}
check 'plain tracing sees the same, but for what a packet meets in a soft interrupt' 'plain [23][0-9]{3}, only there [0-9], only here 1?[0-9]{2}, of these TCP [2-9][0-9]' twice

interrupted() { # SIGNAL
  hull compare --sections surface --isolation process box:1 > /tmp/interrupted.log 2>&1 & local pid=$!
  for _ in $(seq 600); do [ -n "$(left)" ] && break; sleep 0.05; done
  left | wc -l
  sleep 1
  kill -s $1 $pid
  wait $pid
  echo "ended=$?"
  for _ in $(seq 600); do [ -z "$(left)" ] && break; sleep 0.1; done
  left | wc -l
}
check 'SIGINT in the middle: nothing is left' '^1\|ended=130\|0\|' interrupted INT
check 'SIGINT in the middle: no container' '^\|?code=0$' docker ps -aq
check 'SIGKILL in the middle: no trace is left' '^1\|ended=137\|0\|' interrupted KILL
stale() {
  $surface functions $$ > /dev/null 2>&1 < <(sleep 1000) & local pid=$!
  for _ in $(seq 600); do grep -q function $instances/*/current_tracer 2> /dev/null && break; sleep 0.05; done
  kill -9 $pid
  wait $pid 2> /dev/null
  left | wc -l
  $surface functions $$ true > /dev/null
  left | wc -l
}
check 'SIGKILL of what traces: the next takes its trace away' '^1\|.*\|0\|code=0$' stale
small() {
  $surface exercise > /tmp/small & local pid=$! code
  $surface functions -b 4 $pid sh -c "kill -USR1 $pid; until grep -q done /tmp/small; do sleep 0.1; done" 2>&1 > /dev/null
  code=$?
  kill -9 $pid
  return $code
}
check 'buffers that are too small are said to be' 'events were lost: buffers of 4 KiB are too small\|code=3$' small
docker rm -f $(docker ps -aq) > /dev/null 2>&1
