import datetime
import socket
import time

import docker.errors
from harness import IMAGE, cases, check, equal, raises, tar, until, untar


@check("containers")
def run_gives_the_output(c):
    equal(c.client.containers.run(IMAGE, ["echo", "hello world"], remove=True), b"hello world\n")


@check("containers")
def run_gives_stderr_when_asked(c):
    equal(c.client.containers.run(IMAGE, ["sh", "-c", "echo out; echo err >&2"], stdout=False, stderr=True, remove=True), b"err\n")


@check("containers")
def run_raises_for_an_exit_code(c):
    try:
        c.client.containers.run(IMAGE, ["sh", "-c", "echo broken >&2; exit 7"], remove=True)
    except docker.errors.ContainerError as error:
        equal((error.exit_status, error.stderr), (7, b"broken\n"))
    else:
        raise AssertionError("no error")


@check("containers")
def run_detached_then_gone(c):
    made = c.client.containers.run(IMAGE, ["sleep", "0.2"], detach=True, auto_remove=True)
    equal(made.status, "created")

    def gone():
        try:
            made.reload()
        except docker.errors.NotFound:
            return True

    until(gone)


@check("containers")
def a_created_one_is_not_running(c):
    made = c.create(name=c.name())
    equal((made.status, made.attrs["State"]["Running"], made.attrs["State"]["Pid"], made.attrs["State"]["StartedAt"]), ("created", False, 0, "0001-01-01T00:00:00Z"))
    equal(made.attrs["Name"], f"/{made.name}")
    equal(made.attrs["Image"], c.client.images.get(IMAGE).id)


@check("containers")
def a_running_one_says_so(c):
    made = c.shared()
    made.reload()
    state = made.attrs["State"]
    equal((made.status, state["Running"], state["Paused"], state["Restarting"], state["OOMKilled"], state["Dead"], state["ExitCode"], state["Error"]), ("running", True, False, False, False, False, 0, ""))
    assert state["Pid"] > 0 and state["StartedAt"] > "2020"


@check("containers")
def an_ended_one_keeps_its_code(c):
    # Docker stamps the start when it hears of it: what ends at once has ended before, by its clock.
    made = c.start(["sh", "-c", "sleep 0.3; exit 9"])
    equal(made.wait()["StatusCode"], 9)
    made.reload()
    equal((made.status, made.attrs["State"]["ExitCode"], made.attrs["State"]["Pid"]), ("exited", 9, 0))
    assert made.attrs["State"]["FinishedAt"] >= made.attrs["State"]["StartedAt"]


@check("containers")
def get_by_name_id_and_prefix(c):
    made = c.create(name=c.name())
    for key in (made.id, made.id[:12], made.id[:20], made.name):
        equal(c.client.containers.get(key).id, made.id)


@cases("containers", [
    ("inspect", lambda api: api.inspect_container("nosuch")), ("start", lambda api: api.start("nosuch")), ("stop", lambda api: api.stop("nosuch")), ("kill", lambda api: api.kill("nosuch")),
    ("restart", lambda api: api.restart("nosuch")), ("pause", lambda api: api.pause("nosuch")), ("unpause", lambda api: api.unpause("nosuch")), ("wait", lambda api: api.wait("nosuch")),
    ("logs", lambda api: api.logs("nosuch")), ("top", lambda api: api.top("nosuch")), ("stats", lambda api: api.stats("nosuch", stream=False)), ("remove", lambda api: api.remove_container("nosuch")),
    ("rename", lambda api: api.rename("nosuch", "other")), ("update", lambda api: api.update_container("nosuch", cpu_shares=10)), ("diff", lambda api: api.diff("nosuch")),
    ("export", lambda api: next(api.export("nosuch"))), ("get_archive", lambda api: api.get_archive("nosuch", "/")), ("put_archive", lambda api: api.put_archive("nosuch", "/", b"")),
    ("commit", lambda api: api.commit("nosuch")), ("attach", lambda api: api.attach("nosuch")), ("resize", lambda api: api.resize("nosuch", 10, 10)),
])
def not_there(c, call):
    with raises(404, "No such container: nosuch"):
        call(c.api)


@check("containers")
def an_unknown_image_is_404(c):
    with raises(404, "No such image: nosuch:latest"):
        c.api.create_container("nosuch")


@check("containers")
def a_name_is_unique(c):
    first = c.create(name=c.name())
    with raises(409, f'Conflict. The container name "/{first.name}" is already in use by container "{first.id}"'):
        c.create(name=first.name)


@cases("containers", [("space", "a b"), ("slash", "a/b"), ("short", "a"), ("dash", "-ab")])
def a_bad_name(c, name):
    with raises(400, r"Invalid container name \(.*\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\] are allowed"):
        c.create(name=name)


@check("containers")
def starting_a_running_one_is_fine(c):
    c.shared().start()


@check("containers")
def stopping_a_stopped_one_is_fine(c):
    made = c.start("true")
    made.wait()
    made.stop()
    made.stop()


@check("containers")
def stop_sends_term_then_kill(c):
    good = c.start(["sh", "-c", "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done"])
    bad = c.start(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"])
    until(lambda: good.logs() and bad.logs())
    good.stop(timeout=30)
    bad.stop(timeout=1)
    equal((good.wait()["StatusCode"], bad.wait()["StatusCode"]), (4, 137))


@check("containers")
def stop_uses_the_stop_signal(c):
    made = c.start(["sh", "-c", "trap 'exit 6' USR1; echo up; while :; do sleep 0.1; done"], stop_signal="SIGUSR1")
    until(made.logs)
    made.stop(timeout=30)
    equal(made.wait()["StatusCode"], 6)


@check("containers")
def kill_sends_any_signal(c):
    made = c.start(["sh", "-c", "trap 'echo one' USR1; trap 'exit 3' USR2; echo up; while :; do sleep 0.1; done"])
    until(made.logs)
    made.kill("SIGUSR1")
    until(lambda: b"one" in made.logs())
    made.kill(12)
    equal(made.wait()["StatusCode"], 3)


@check("containers")
def kill_kills(c):
    made = c.start()
    made.kill()
    equal(made.wait()["StatusCode"], 137)


@check("containers")
def kill_needs_a_running_one_and_a_signal(c):
    made = c.create()
    with raises(409, "is not running"):
        made.kill()
    with raises(400, "(?i)invalid signal: NOSUCH"):
        c.shared().kill("NOSUCH")


@check("containers")
def restart_runs_it_anew(c):
    made = c.start(["sh", "-c", "echo run >> /count; wc -l < /count; exec sleep 600"])
    until(made.logs)
    before = c.client.containers.get(made.id).attrs["State"]["StartedAt"]
    made.restart(timeout=0)
    until(lambda: made.logs() == b"1\n2\n")
    made.reload()
    equal(made.status, "running")
    assert made.attrs["State"]["StartedAt"] > before


@check("containers")
def pause_stops_time(c):
    made = c.start(["sh", "-c", "while :; do date +%s%N; sleep 0.05; done"])
    until(made.logs)
    made.pause()
    made.reload()
    equal((made.status, made.attrs["State"]["Paused"], made.attrs["State"]["Running"]), ("paused", True, True))

    def silent():
        nonlocal before
        before = made.logs()
        time.sleep(0.5)
        return made.logs() == before

    before = b""
    until(silent)  # what was written before the pause may still be on its way into the log
    with raises(409, "is already paused"):
        made.pause()
    made.unpause()
    until(lambda: made.logs() != before)


@check("containers")
def unpause_needs_a_paused_one(c):
    with raises(409, "is not paused"):
        c.shared().unpause()


@check("containers")
def pause_needs_a_running_one(c):
    with raises(409, "is not running"):
        c.create().pause()


@check("containers")
def rename(c):
    made, other, name = c.create(name=c.name()), c.create(name=c.name()), c.name()
    old = made.name
    made.rename(name)
    made.reload()
    equal(made.name, name)
    equal(c.client.containers.get(name).id, made.id)
    with raises(404, "No such container"):
        c.client.containers.get(old)
    with raises(409, "already in use"):
        made.rename(other.name)
    with raises(400, "Invalid container name"):
        made.rename("a b")


@check("containers")
def wait_for_the_end(c):
    made = c.start(["sh", "-c", "sleep 0.5; exit 5"])
    equal(made.wait(timeout=60)["StatusCode"], 5)
    equal(made.wait(timeout=60)["StatusCode"], 5)


def begin_wait(c, made, condition):
    """A wait that the daemon knows of: it answers with the headers at once, and with the body at the end. Container.wait() returns after both."""
    return c.api._post(c.api._url("/containers/{0}/wait", made.id), params={"condition": condition}, stream=True, timeout=60)


@check("containers")
def wait_for_removal(c):
    made = c.start("sleep 600")
    answer = begin_wait(c, made, "removed")
    made.remove(force=True)
    equal(answer.json()["StatusCode"], 137)


@check("containers")
def wait_for_the_next_exit(c):
    made = c.create(["sh", "-c", "exit 8"])
    answer = begin_wait(c, made, "next-exit")
    made.start()
    equal(answer.json()["StatusCode"], 8)


@check("containers")
def wait_with_an_unknown_condition(c):
    with raises(400, "invalid condition"):
        c.create().wait(condition="nosuch")


@check("containers")
def logs_of_each_stream(c):
    code, out, err = c.run("echo out; echo err >&2")
    equal((code, out, err), (0, "out\n", "err\n"))


@check("containers")
def logs_tail_and_timestamps(c):
    made = c.start(["sh", "-c", "for n in 1 2 3 4 5; do echo line $n; done"])
    made.wait()
    equal(made.logs(tail=2), b"line 4\nline 5\n")
    equal(made.logs(tail=0), b"")
    equal(made.logs(tail="all").count(b"\n"), 5)
    stamp, text = made.logs(timestamps=True, tail=1).decode().split(" ", 1)
    equal(text, "line 5\n")
    assert stamp.endswith("Z") and len(stamp) == 30 and stamp[:2] == "20", stamp


@check("containers")
def logs_since_and_until(c):
    made = c.start(["sh", "-c", "echo early; sleep 3; echo late"])
    made.wait()
    stamps = [line.split(" ")[0] for line in made.logs(timestamps=True).decode().splitlines()]
    # The second in which the late line was stamped. The early one's is an earlier second, however late the supervisor came to read it, unless that took it three.
    middle = int(datetime.datetime.strptime(stamps[1][:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc).timestamp())
    equal(made.logs(since=middle), b"late\n")
    equal(made.logs(until=middle), b"early\n")
    equal(made.logs(since=middle + 100), b"")


@check("containers")
def logs_follow(c):
    made = c.start(["sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.2; done"])
    equal(b"".join(made.logs(stream=True, follow=True)), b"1\n2\n3\n")


@check("containers")
def logs_of_a_terminal(c):
    made = c.start(["sh", "-c", "echo one; echo two >&2"], tty=True)
    made.wait()
    equal(made.logs(), b"one\r\ntwo\r\n")


@check("containers")
def attach_gives_what_comes(c):
    made = c.create(["sh", "-c", "echo first; sleep 0.3; echo second"])
    stream = made.attach(stream=True, stdout=True, stderr=True)
    made.start()
    equal(b"".join(stream), b"first\nsecond\n")


@check("containers")
def attach_replays_the_log(c):
    made = c.start(["sh", "-c", "echo logged"])
    made.wait()
    equal(made.attach(stdout=True, stderr=True, logs=True, stream=False), b"logged\n")


@check("containers")
def attach_takes_stdin(c):
    made = c.create("cat", stdin_open=True)
    connection = made.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    made.start()
    raw = getattr(connection, "_sock", connection)
    raw.sendall(b"through\n")
    received = b""
    while len(received) < 16:
        received += raw.recv(4096)
    equal(received, b"\x01\0\0\0\0\0\0\x08through\n")
    connection.close()


@check("containers")
def stdin_once_ends_with_the_client(c):
    made = c.client.api.create_container(IMAGE, ["sh", "-c", "cat; echo end"], stdin_open=True, host_config=c.api.create_host_config())
    c.later(c.api.remove_container, made["Id"], force=True)
    connection = c.api.attach_socket(made["Id"], params={"stdin": 1, "stdout": 1, "stream": 1})
    c.api.start(made["Id"])
    raw = getattr(connection, "_sock", connection)
    raw.sendall(b"x\n")
    raw.shutdown(socket.SHUT_WR)
    equal(c.api.wait(made["Id"], timeout=60)["StatusCode"], 0)
    equal(c.api.logs(made["Id"]), b"x\nend\n")
    connection.close()


@check("containers")
def top(c):
    said = c.shared().top()
    assert "PID" in said["Titles"] and "CMD" in said["Titles"], said
    assert any("echo ready" in row[-1] for row in said["Processes"]), said
    assert "COMMAND" in c.shared().top(ps_args="aux")["Titles"]


@check("containers")
def top_needs_a_running_one(c):
    with raises(409, "is not running"):
        c.create().top()


@check("containers")
def stats_once(c):
    said = c.shared().stats(stream=False)
    assert said["read"] > "2020" and said["preread"] != said["read"]
    assert said["memory_stats"]["usage"] > 0 and said["memory_stats"]["limit"] > 0
    assert said["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and said["cpu_stats"]["system_cpu_usage"] > 0 and said["cpu_stats"]["online_cpus"] > 0
    assert said["pids_stats"]["current"] >= 1
    assert said["networks"]["eth0"]["rx_bytes"] >= 0
    equal((said["id"], said["name"]), (c.shared().id, f"/{c.shared().name}"))


@check("containers")
def stats_stream(c):
    stream = c.shared().stats(decode=True)
    first, second = next(stream), next(stream)
    assert second["read"] > first["read"]
    equal(second["preread"], first["read"])
    stream.close()


@check("containers")
def stats_of_a_stopped_one(c):
    said = c.create().stats(stream=False)
    equal(said["pids_stats"].get("current", 0), 0)


@check("containers")
def diff(c):
    made = c.start(["sh", "-c", "echo x > /new; echo y >> /etc/passwd; rm /etc/group"])
    made.wait()
    seen = {row["Path"]: row["Kind"] for row in made.diff()}
    equal((seen["/new"], seen["/etc"], seen["/etc/passwd"], seen["/etc/group"]), (1, 0, 0, 2))


@check("containers")
def export(c):
    made = c.start(["sh", "-c", "echo exported > /made-here"])
    made.wait()
    files = untar(made.export())
    equal(files["made-here"], b"exported\n")
    assert "etc/passwd" in files


@check("containers")
def copy_in_and_out_of_a_running_one(c):
    made = c.start()
    equal(made.put_archive("/tmp", tar({"in.txt": "copied in\n"})), True)
    equal(made.exec_run("cat /tmp/in.txt").output, b"copied in\n")
    made.exec_run(["sh", "-c", "mkdir /out; echo a > /out/a"])
    chunks, stat = made.get_archive("/out")
    files = untar(chunks)
    equal(files, {"out": None, "out/a": b"a\n"})
    equal((stat["name"], bool(stat["mode"] & 1 << 31)), ("out", True))
    chunks, stat = made.get_archive("/tmp/in.txt")
    equal(untar(chunks), {"in.txt": b"copied in\n"})
    equal((stat["name"], stat["size"], stat["mode"] & 0o777), ("in.txt", 10, 0o644))


@check("containers")
def copy_in_and_out_of_a_stopped_one(c):
    made = c.create(["cat", "/root/f"])
    equal(made.put_archive("/root", tar({"f": "before the start\n"})), True)
    equal(untar(made.get_archive("/root/f")[0]), {"f": b"before the start\n"})
    made.start()
    made.wait()
    equal(made.logs(), b"before the start\n")


@check("containers")
def copy_follows_links_inside_only(c):
    made = c.start(["sh", "-c", "ln -s /etc/passwd /link; ln -s ../../../../../../etc/hostname /climb; exec sleep 600"])
    until(lambda: made.exec_run("ls /climb").exit_code == 0)
    _, stat = made.get_archive("/link")
    equal(stat["linkTarget"], "/etc/passwd")
    made.exec_run(["sh", "-c", "mkdir /d; echo in > /d/f; ln -s /d /dl"])
    equal(untar(made.get_archive("/dl/f")[0]), {"f": b"in\n"})


@check("containers")
def copy_from_nowhere(c):
    made = c.create()
    with raises(404, "(?i)could not find the file /nosuch in container|no such file"):
        made.get_archive("/nosuch")
    with raises(404, "(?i)could not find the file|no such file"):
        made.put_archive("/nosuch", tar({"f": ""}))


@check("containers")
def update_limits(c):
    made = c.create(mem_limit="64m")
    made.update(mem_limit="96m", memswap_limit="128m", cpu_shares=512)
    made.reload()
    host = made.attrs["HostConfig"]
    equal((host["Memory"], host["MemorySwap"], host["CpuShares"]), (96 << 20, 128 << 20, 512))


@check("containers")
def update_the_restart_policy(c):
    made = c.create()
    made.update(restart_policy={"Name": "on-failure", "MaximumRetryCount": 3})
    made.reload()
    equal(made.attrs["HostConfig"]["RestartPolicy"], {"Name": "on-failure", "MaximumRetryCount": 3})


@check("containers")
def restart_on_failure_counts(c):
    made = c.start(["sh", "-c", "exit 1"], restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})

    def ended():
        made.reload()
        return made.status == "exited" and made.attrs["RestartCount"] == 2

    until(ended, 60)


@check("containers")
def restart_always_until_stopped(c):
    made = c.start(["sh", "-c", "echo up; sleep 0.3"], restart_policy={"Name": "always"})
    until(lambda: made.logs().count(b"up") >= 2, 60)
    made.stop(timeout=1)
    made.reload()
    equal(made.status, "exited")


@check("containers")
def health_check(c):
    second = 10**9
    made = c.start(["sh", "-c", "sleep 1; touch /ok; exec sleep 600"], healthcheck={"test": ["CMD-SHELL", "test -e /ok"], "interval": second // 2, "timeout": 10 * second, "retries": 100})

    def status(wanted):
        made.reload()
        return made.attrs["State"]["Health"]["Status"] == wanted

    until(lambda: status("healthy"), 60)
    log = made.attrs["State"]["Health"]["Log"]
    equal(log[-1]["ExitCode"], 0)
    assert "(healthy)" in c.api.containers(filters={"id": made.id})[0]["Status"]
    made.exec_run("rm /ok")
    until(lambda: made.reload() or made.attrs["State"]["Health"]["FailingStreak"] > 0, 60)


@check("containers")
def remove_needs_force_while_running(c):
    made = c.start()
    with raises(409, "(?i)(cannot|You cannot) remove .*running"):
        made.remove()
    made.remove(force=True)
    with raises(404, "No such container"):
        made.reload()


@check("containers")
def prune_removes_what_is_stopped(c):
    made = c.create(labels={"prune": c.name()})
    keep = c.create(labels={"prune": "no"})
    said = c.client.containers.prune(filters={"label": f"prune={made.labels['prune']}"})
    equal(said["ContainersDeleted"], [made.id])
    assert said["SpaceReclaimed"] >= 0
    keep.reload()


@check("containers")
def list_and_its_filters(c):
    label = f"list={c.name()}"
    key, value = label.split("=")
    first = c.create(labels={key: value}, name=c.name())
    second = c.start(labels={key: value}, ports={"80/tcp": None})
    third = c.start(["sh", "-c", "exit 3"], labels={key: value})
    third.wait()
    ids = lambda **options: [one.id for one in c.client.containers.list(**options)]
    mine = lambda **filters: set(ids(all=True, filters={"label": label, **filters}))
    equal(ids(filters={"label": label}), [second.id])
    equal(ids(all=True, filters={"label": label}), [third.id, second.id, first.id])
    equal(mine(status="created"), {first.id})
    equal(mine(status=["running", "exited"]), {second.id, third.id})
    equal(mine(exited=3), {third.id})
    equal(mine(name=first.name), {first.id})
    equal(mine(name=f"^/{first.name}$"), {first.id})
    equal(mine(id=second.id[:12]), {second.id})
    equal(mine(before=third.id), {first.id, second.id})
    equal(mine(since=first.id), {second.id, third.id})
    equal(mine(ancestor=IMAGE), {first.id, second.id, third.id})
    equal(mine(expose="80/tcp"), {second.id})
    equal(mine(network="nosuch"), set())
    assert second.id in mine(network="bridge")
    equal(len(ids(limit=1, filters={"label": label})), 1)


@check("containers")
def list_tells_what_ps_shows(c):
    made = c.start(["sleep", "600"], ports={"80/tcp": ("127.0.0.1", None), "53/udp": None}, labels={"a": "b"}, name=c.name())
    row = next(row for row in c.api.containers() if row["Id"] == made.id)
    equal((row["Names"], row["Image"], row["ImageID"], row["Command"], row["State"], row["Labels"]), ([f"/{made.name}"], IMAGE, made.image.id, "sleep 600", "running", {"a": "b"}))
    assert row["Status"].startswith("Up"), row["Status"]
    tcp = next(port for port in row["Ports"] if port["Type"] == "tcp")
    equal((tcp["IP"], tcp["PrivatePort"]), ("127.0.0.1", 80))
    assert tcp["PublicPort"] > 0
    assert any(port["Type"] == "udp" and port["PrivatePort"] == 53 for port in row["Ports"])
    assert row["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert row["Created"] > 1_600_000_000


@check("containers")
def list_refuses_unknown_filters(c):
    with raises(400, "(?i)invalid filter"):
        c.client.containers.list(filters={"nosuch": "x"})


@check("containers")
def list_with_sizes(c):
    made = c.start(["sh", "-c", "dd if=/dev/zero of=/big bs=1k count=100 2> /dev/null"])
    made.wait()
    row = next(row for row in c.api.containers(all=True, size=True, filters={"id": made.id}))
    assert row["SizeRw"] >= 100_000 and row["SizeRootFs"] > row["SizeRw"], row


@check("containers")
def commit(c):
    made = c.start(["sh", "-c", "echo kept > /kept"])
    made.wait()
    name = c.name()
    image = made.commit(name, "v1", message="why", author="me", changes=["CMD [\"cat\", \"/kept\"]", "ENV ADDED=yes"])
    c.later(c.client.images.remove, f"{name}:v1", force=True)
    equal(image.tags, [f"{name}:v1"])
    equal((image.attrs["Comment"], image.attrs["Author"]), ("why", "me"))
    assert "ADDED=yes" in image.attrs["Config"]["Env"]
    equal(c.client.containers.run(f"{name}:v1", remove=True), b"kept\n")


@check("containers")
def resize(c):
    made = c.start(["sh", "-c", "while [ \"$(stty size)\" != '33 77' ]; do sleep 0.1; done; echo sized"], tty=True)
    made.resize(33, 77)
    equal(made.wait(timeout=60)["StatusCode"], 0)
    assert b"sized" in made.logs()


@check("containers")
def port_answers(c):
    made = c.start(["sh", "-c", "while :; do echo served | nc -l -p 80; done"], ports={"80/tcp": ("127.0.0.1", None)})
    made.reload()
    (binding,) = c.api.port(made.id, 80)
    equal((binding["HostIp"], made.ports["80/tcp"]), ("127.0.0.1", [binding]))

    def answer():
        try:
            with socket.create_connection(("127.0.0.1", int(binding["HostPort"])), 5) as connection:
                return connection.recv(100) == b"served\n"
        except OSError:
            return False

    until(answer)


@check("containers")
def a_port_is_taken_once(c):
    first = c.start(ports={"80/tcp": ("127.0.0.1", None)})
    first.reload()
    taken = int(first.ports["80/tcp"][0]["HostPort"])
    second = c.create(ports={"80/tcp": ("127.0.0.1", taken)})
    with raises(500, "(?i)port is already allocated|address already in use"):
        second.start()
    second.reload()
    equal(second.status, "created")


@check("containers")
def a_command_that_is_not_there(c):
    made = c.create("nosuchcommand")
    with raises(400, "executable file not found in \\$PATH"):
        made.start()
    made.reload()
    equal((made.status, made.attrs["State"]["ExitCode"]), ("created", 127))


@check("containers")
def out_of_memory_is_told(c):
    made = c.start(["dd", "if=/dev/zero", "of=/t/x", "bs=1M"], mem_limit="64m", memswap_limit="64m", tmpfs={"/t": "size=1g"})
    equal(made.wait(timeout=120)["StatusCode"], 137)
    made.reload()
    equal(made.attrs["State"]["OOMKilled"], True)
