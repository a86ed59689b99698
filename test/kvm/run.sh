#!/bin/bash
# In the machine that scripts/test-kvm boots, under systemd: Hull's core with the accelerator kvm, on pure cgroup v2, started by its unit. Each check is a line on the serial port; the last line counts.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
for module in kvm_amd tun veth bridge overlay erofs loop nf_tables; do modprobe $module; done

passed=0 failed=0
say() { echo "@@ $(cut -d ' ' -f 1 /proc/uptime) $*"; }
# check NAME PATTERN COMMAND…: its output (both streams, with 'code=N' as the last line) matches the extended regular expression.
check() {
  local name=$1 pattern=$2 out code
  shift 2
  out=$("$@" 2>&1)
  code=$?
  out=$(printf '%s\ncode=%s' "$out" "$code" | tr -d '\r' | tr '\n' '|')
  if [[ $out =~ $pattern ]]; then passed=$((passed + 1)); say "ok $name"; else failed=$((failed + 1)); say "FAILED $name: $out does not match $pattern"; fi
}
run() { docker run --rm "$@"; }

check 'doctor: KVM boots a guest' 'KVM: booted a guest.*everything that is needed is there' hull doctor
export DOCKER_HOST=unix:///run/hull/hull.sock
answers() { for _ in $(seq 400); do docker version > /dev/null 2>&1 && return; sleep 0.2; done; }
systemctl start hull
answers
check 'the unit is active' '^active' systemctl is-active hull
mkdir -p /tmp/image/bin
cp /bin/busybox /tmp/image/bin/
for name in $(busybox --list); do [ $name = busybox ] || ln -s busybox /tmp/image/bin/$name; done
tar -C /tmp/image -c . | docker import - box:1 > /dev/null

check 'info: kvm, cgroup v2' 'VM accelerator: kvm.*Cgroup Version: 2' docker info
for isolation in process vm; do
  i=--isolation=$isolation
  check "$isolation: streams and code" 'out\|.*code=7$' run $i box:1 sh -c 'echo out; exit 7'
  check "$isolation: no command" 'executable file not found.*code=127$' run $i box:1 nosuch
  check "$isolation: pids limit" "can't fork|Resource temporarily" run $i --pids-limit 8 box:1 sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; wait'
  check "$isolation: nproc" '\|?1\|code=0$' run $i --cpuset-cpus 0 box:1 nproc
  check "$isolation: up" 'code=0$' docker run -d --name up-$isolation $i -m 64m -p 0:80 box:1 sh -c 'echo first; while :; do echo served | nc -l -p 80; done'
  check "$isolation: exec" 'inside\|code=3$' docker exec up-$isolation sh -c 'echo inside; exit 3'
  check "$isolation: logs" 'first\|code=0$' docker logs up-$isolation
  check "$isolation: memory limit" '67108864' docker exec up-$isolation cat /sys/fs/cgroup/memory.max
  check "$isolation: published port" 'served' sh -c "sleep 1; busybox nc -w 20 127.0.0.1 \$(docker port up-$isolation 80/tcp | head -n 1 | cut -d: -f2) < /dev/null"
  check "$isolation: the OOM killer's score is not the daemon's" '^0\|0\|0\|-500\|code=0$' sh -c "docker exec up-$isolation cat /proc/1/oom_score_adj /proc/self/oom_score_adj; cat /proc/\$(docker inspect -f '{{.State.Pid}}' up-$isolation)/oom_score_adj /proc/\$(systemctl show -p MainPID --value hull)/oom_score_adj"
  check "$isolation: stats" 'MiB / 64MiB|KiB / 64MiB' docker stats --no-stream up-$isolation
  check "$isolation: pause" 'Paused' sh -c "docker pause up-$isolation && docker ps --filter name=up-$isolation; docker unpause up-$isolation"
  check "$isolation: update" '100663296' sh -c "docker update -m 96m --memory-swap 96m up-$isolation; docker exec up-$isolation cat /sys/fs/cgroup/memory.max"
  check "$isolation: cp" 'copied' sh -c "echo copied > /tmp/file; docker cp /tmp/file up-$isolation:/file; docker exec up-$isolation cat /file"
  check "$isolation: a volume" 'kept' sh -c "docker run --rm $i -v data:/data box:1 sh -c 'echo kept > /data/file-$isolation'; docker run --rm $i -v data:/data box:1 cat /data/file-$isolation"
  check "$isolation: OOM" 'true 137' sh -c "docker run --name oom-$isolation $i -m 16m box:1 dd if=/dev/zero of=/dev/shm/x bs=64k count=900; docker inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' oom-$isolation"
done
check 'volumes are shared between the isolations' 'file-process.*file-vm' run --isolation=vm -v data:/data box:1 ls /data
check 'they reach each other' '1 packets received' docker exec up-process ping -c 1 -W 20 "$(docker inspect -f '{{.NetworkSettings.IPAddress}}' up-vm)"
check 'mitigations are kept in the guest' 'Mitigation|Not affected' docker exec up-vm cat /sys/devices/system/cpu/vulnerabilities/spectre_v2

# Templates: the first VM of a shape (256 MiB, a network card) boots, the next are clones.
run --isolation=vm box:1 true > /dev/null 2>&1
for _ in $(seq 12); do # templates of the shapes that came before are made first
  docker run -d --name clone --isolation=vm box:1 sleep 1000 > /dev/null 2>&1
  hull explain clone | grep -q 'from a memory template' && break
  docker rm -f clone > /dev/null
  sleep 10
done
check 'a clone' 'start +from a memory template' hull explain clone
identity() { for n in 1 2 3; do docker run --rm --isolation=vm box:1 sh -c 'cat /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1' 2> /dev/null; done | sort -u | wc -l; }
check 'clones are different machines' '^6\|' identity
drift() { local there; there=$(docker exec clone date +%s); echo "drift=$(($(date +%s) - there))"; }
check 'a clone has the time' 'drift=[0-3]\|' drift
sleep 3
check 'and keeps it' 'drift=[0-3]\|' drift

before=$(systemctl show -p MainPID --value hull)
systemctl kill --kill-whom=main --signal=KILL hull
sleep 3
answers
check 'kill -9 of the daemon: systemd starts another, and all goes on' 'up-vm.*up-process|up-process.*up-vm' docker ps
check 'it is another' 'code=0$' test "$before" != "$(systemctl show -p MainPID --value hull)"
systemctl restart hull
answers
check 'systemctl restart: all goes on' 'up-vm.*up-process|up-process.*up-vm' docker ps
check 'a VM that was there before is entered' 'still' docker exec up-vm echo still
docker rm -f $(docker ps -aq) > /dev/null
check 'nothing of a VM is left' '^\|?code=1$' pgrep -f 'qemu-system|hull-vmm'

. /root/functions.sh
journalctl -u hull --no-pager -n 3
echo "@@ $passed passed, $failed failed"
sync
echo o > /proc/sysrq-trigger
sleep 10
