"""What is said at creation: found again by inspect, and true inside."""
import os

from docker.types import LogConfig, Mount, Ulimit
from harness import IMAGE, at, cases, check, equal, raises


@cases("options", [
    ("command_words", {"command": ["a", "b c"]}, "Config.Cmd", ["a", "b c"]),
    ("command_text", {"command": "a 'b c'"}, "Config.Cmd", ["a", "b c"]),
    ("entrypoint", {"entrypoint": ["x", "y"]}, "Config.Entrypoint", ["x", "y"]),
    ("environment", {"environment": {"A": "1"}}, "Config.Env", ["A=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
    ("hostname", {"hostname": "box"}, "Config.Hostname", "box"),
    ("domainname", {"domainname": "example.test"}, "Config.Domainname", "example.test"),
    ("user", {"user": "1000:1000"}, "Config.User", "1000:1000"),
    ("working_dir", {"working_dir": "/srv"}, "Config.WorkingDir", "/srv"),
    ("labels_list", {"labels": ["bare"]}, "Config.Labels", {"bare": ""}),
    ("labels", {"labels": {"k": "v"}}, "Config.Labels", {"k": "v"}),
    ("terminal", {"tty": True}, "Config.Tty", True),
    ("stdin_open", {"stdin_open": True}, "Config.OpenStdin", True),
    ("stop_signal", {"stop_signal": "SIGUSR1"}, "Config.StopSignal", "SIGUSR1"),
    ("healthcheck", {"healthcheck": {"test": ["CMD", "true"], "interval": 2000000000, "timeout": 3000000000, "retries": 4, "start_period": 5000000000}}, "Config.Healthcheck", {"Test": ["CMD", "true"], "Interval": 2000000000, "Timeout": 3000000000, "Retries": 4, "StartPeriod": 5000000000}),
    ("memory", {"mem_limit": "64m"}, "HostConfig.Memory", 64 << 20),
    ("memory_swap", {"mem_limit": "64m", "memswap_limit": "96m"}, "HostConfig.MemorySwap", 96 << 20),
    ("memory_swap_by_default", {"mem_limit": "64m"}, "HostConfig.MemorySwap", 128 << 20),
    ("memory_reservation", {"mem_reservation": "32m"}, "HostConfig.MemoryReservation", 32 << 20),
    ("cpus", {"nano_cpus": 500000000}, "HostConfig.NanoCpus", 500000000),
    ("cpu_shares", {"cpu_shares": 256}, "HostConfig.CpuShares", 256),
    ("cpu_quota", {"cpu_period": 100000, "cpu_quota": 50000}, "HostConfig.CpuQuota", 50000),
    ("cpuset", {"cpuset_cpus": "0"}, "HostConfig.CpusetCpus", "0"),
    ("pids_limit", {"pids_limit": 50}, "HostConfig.PidsLimit", 50),
    ("ulimits", {"ulimits": [Ulimit(name="nofile", soft=512, hard=1024)]}, "HostConfig.Ulimits", [{"Name": "nofile", "Soft": 512, "Hard": 1024}]),
    ("tmpfs", {"tmpfs": {"/t": "size=1m"}}, "HostConfig.Tmpfs", {"/t": "size=1m"}),
    ("read_only", {"read_only": True}, "HostConfig.ReadonlyRootfs", True),
    ("init", {"init": True}, "HostConfig.Init", True),
    ("shm_size", {"shm_size": "32m"}, "HostConfig.ShmSize", 32 << 20),
    ("shm_size_by_default", {}, "HostConfig.ShmSize", 64 << 20),
    ("sysctls", {"sysctls": {"net.core.somaxconn": "512"}}, "HostConfig.Sysctls", {"net.core.somaxconn": "512"}),
    ("cap_add", {"cap_add": ["NET_ADMIN"]}, "HostConfig.CapAdd", ["NET_ADMIN"]),
    ("cap_drop", {"cap_drop": ["ALL"]}, "HostConfig.CapDrop", ["ALL"]),
    ("privileged", {"privileged": True}, "HostConfig.Privileged", True),
    ("security_opt", {"security_opt": ["no-new-privileges"]}, "HostConfig.SecurityOpt", ["no-new-privileges"]),
    ("extra_hosts", {"extra_hosts": {"peer": "192.0.2.9"}}, "HostConfig.ExtraHosts", ["peer:192.0.2.9"]),
    ("dns", {"dns": ["192.0.2.53"], "dns_search": ["example.test"], "dns_opt": ["ndots:2"]}, "HostConfig.Dns", ["192.0.2.53"]),
    ("log_driver", {"log_config": LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"})}, "HostConfig.LogConfig", {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}),
    ("log_driver_none", {"log_config": LogConfig(type="none")}, "HostConfig.LogConfig.Type", "none"),
    ("restart_policy", {"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 5}}, "HostConfig.RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 5}),
    ("auto_remove", {"auto_remove": True}, "HostConfig.AutoRemove", True),
    ("network_none", {"network_mode": "none"}, "HostConfig.NetworkMode", "none"),
    ("network_by_default", {}, "HostConfig.NetworkMode", "default"),
    ("group_add", {"group_add": ["2000"]}, "HostConfig.GroupAdd", ["2000"]),
    ("oom_score_adj", {"oom_score_adj": 500}, "HostConfig.OomScoreAdj", 500),
    ("ports", {"ports": {"80/tcp": ("127.0.0.1", 18080), "53/udp": 15353}}, "HostConfig.PortBindings", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18080"}], "53/udp": [{"HostIp": "", "HostPort": "15353"}]}),
    ("exposed_ports", {"ports": {"80/tcp": None}}, "Config.ExposedPorts", {"80/tcp": {}}),
    ("publish_all", {"publish_all_ports": True}, "HostConfig.PublishAllPorts", True),
    ("ipc_mode", {"ipc_mode": "private"}, "HostConfig.IpcMode", "private"),
    ("mac_address", {"mac_address": "02:42:ac:11:00:99"}, "Config.MacAddress", "02:42:ac:11:00:99"),
    ("runtime", {}, "HostConfig.Runtime", None),
])
def inspected(c, options, path, wanted):
    options = dict(options)
    made = c.create(options.pop("command", "true"), **options)
    found = at(made.attrs, path)
    if path == "HostConfig.Runtime":
        assert found in c.client.info()["Runtimes"], found
    elif path == "Config.Env":
        equal(sorted(found), sorted(wanted))
    else:
        equal(found, wanted)


@cases("options", [
    ("environment_and_place", {"environment": ["A=1 2"], "hostname": "box", "domainname": "example.test", "working_dir": "/srv/new", "user": "1000:2000"}, "echo $A; hostname; pwd; id -u; id -g; hostname -f 2> /dev/null || grep -o 'box.example.test' /etc/hosts", "1 2\nbox\n/srv/new\n1000\n2000\nbox.example.test\n"),
    ("limits", {"ulimits": [Ulimit(name="nofile", soft=512, hard=1024)], "shm_size": "8m", "sysctls": {"net.core.somaxconn": "512"}, "tmpfs": {"/t": "size=1m"}}, "ulimit -n; df -k /dev/shm /t | tail -n 2 | awk '{print $2}'; cat /proc/sys/net/core/somaxconn", "512\n8192\n1024\n512\n"),
    ("read_only_with_tmpfs", {"read_only": True, "tmpfs": {"/t": ""}}, "touch /x 2> /dev/null || echo ro; touch /t/x && echo rw", "ro\nrw\n"),
    ("capabilities", {"cap_drop": ["ALL"], "cap_add": ["NET_RAW"]}, "grep CapEff /proc/self/status | cut -f 2", "0000000000002000\n"),
    ("no_new_privileges", {"security_opt": ["no-new-privileges"]}, "grep NoNewPrivs /proc/self/status | cut -f 2", "1\n"),
    ("privileged_mounts", {"privileged": True}, "mount -t tmpfs x /mnt && echo mounted", "mounted\n"),
    ("init", {"init": True}, "test $$ != 1 && echo not-first", "not-first\n"),
    ("groups", {"user": "1000:1000", "group_add": ["2000"]}, "id -G", "1000 2000\n"),
    ("hosts_and_dns", {"extra_hosts": {"peer": "192.0.2.9"}, "dns": ["192.0.2.53"], "dns_search": ["example.test"], "dns_opt": ["ndots:2"]}, "grep -o '192.0.2.9.peer' /etc/hosts | tr '\\t' ' '; grep -v '^#' /etc/resolv.conf | grep . | sort", "192.0.2.9 peer\nnameserver 192.0.2.53\noptions ndots:2\nsearch example.test\n"),
    ("no_network", {"network_mode": "none"}, "ls /sys/class/net", "lo\n"),
    ("mac_address", {"mac_address": "02:42:ac:11:00:99"}, "cat /sys/class/net/eth0/address", "02:42:ac:11:00:99\n"),
    ("entrypoint", {"entrypoint": ["sh", "-c", "echo entry"]}, "ignored", "entry\n"),
    ("pids_limit", {"pids_limit": 12}, "(for i in $(seq 40); do sleep 20 & done) 2>&1 | grep -qiE \"can't fork|unavailable\" && echo limited", "limited\n"),
])
def inside(c, options, script, wanted):
    code, out, err = c.run(script, **options)
    assert out == wanted, f"{out!r} (code {code}, stderr {err!r}), not {wanted!r}"


@check("options")
def network_host_is_the_hosts(c):
    code, out, _ = c.run("readlink /proc/self/ns/net", network_mode="host")
    equal((code, out.strip()), (0, os.readlink("/proc/self/ns/net")))


@check("options")
def log_driver_none_has_no_logs(c):
    made = c.start(["echo", "lost"], log_config=LogConfig(type="none"))
    made.wait()
    with raises(501, "configured logging driver does not support reading"):
        made.logs()


@check("options")
def log_files_rotate(c):
    made = c.start(["sh", "-c", "seq 1 20000"], log_config=LogConfig(type="json-file", config={"max-size": "64k", "max-file": "2"}))
    made.wait()
    lines = made.logs().split()
    assert 100 < len(lines) < 20000, len(lines)
    equal(lines[-1], b"20000")


@check("options")
def volumes_from(c):
    source = c.create(volumes=["/shared"])
    code, out, _ = c.run("grep -c ' /shared ' /proc/mounts", volumes_from=[source.id])
    equal((code, out), (0, "1\n"))


@check("options")
def network_of_another_container(c):
    first = c.start()
    code, out, _ = c.run("cat /sys/class/net/eth0/address", network_mode=f"container:{first.id}")
    equal((code, out.encode()), (0, first.exec_run("cat /sys/class/net/eth0/address").output))


@cases("options", [
    ("memory_too_small", {"mem_limit": "1m"}, 400, "Minimum memory limit allowed is 6MB"),
    ("cpu_quota_too_small", {"cpu_quota": 10}, 400, "(?i)cfs quota can not be less than 1ms"),
    ("swap_below_memory", {"mem_limit": "64m", "memswap_limit": "32m"}, 400, "(?i)memoryswap"),
    ("working_dir_relative", {"working_dir": "a/b"}, 400, "working directory 'a/b' is invalid, it needs to be an absolute path"),
    ("restart_policy_with_auto_remove", {"restart_policy": {"Name": "always"}, "auto_remove": True}, 400, "can't create 'AutoRemove' container with restart policy"),
    ("unknown_capability", {"cap_add": ["NOSUCH"]}, 400, '(?i)CAP_NOSUCH|NOSUCH'),
    ("unknown_network", {"network": "nosuch-network"}, 404, "network nosuch-network not found"),
    ("unknown_log_driver", {"log_config": LogConfig(type="nosuch")}, 400, "nosuch"),
    ("relative_bind", {"mounts": [Mount("relative", "/nosuch-dir-of-host", type="bind")]}, 400, "(?i)mount path must be absolute"),
    ("bind_source_missing", {"mounts": [Mount("/x", "/nosuch-dir-of-host", type="bind")]}, 400, "bind source path does not exist: /nosuch-dir-of-host"),
    ("two_mounts_on_one_target", {"mounts": [Mount("/x", None, type="volume"), Mount("/x", None, type="tmpfs")]}, 400, "Duplicate mount point: /x"),
    ("stop_signal", {"stop_signal": "NOSUCH"}, 400, "(?i)invalid signal"),
    ("cpus_beyond_the_machine", {"nano_cpus": 10**12}, 400, "(?i)range of CPUs is from 0.01 to"),
])
def refused(c, options, status, words):
    with raises(status, words):
        c.create(**options).start()
