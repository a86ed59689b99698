from harness import cases, check, equal, raises, until


@check("exec")
def output_and_exit_code(c):
    code, output = c.shared().exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    equal(code, 3)
    equal(set(output.decode().split()), {"out", "err"})


@check("exec")
def keeps_the_streams_apart(c):
    code, (out, err) = c.shared().exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True)
    equal((code, out, err), (0, b"out\n", b"err\n"))


@check("exec")
def gives_one_stream_when_one_is_asked(c):
    equal(c.shared().exec_run(["sh", "-c", "echo out; echo err >&2"], stderr=False).output, b"out\n")
    equal(c.shared().exec_run(["sh", "-c", "echo out; echo err >&2"], stdout=False).output, b"err\n")


@check("exec")
def streams(c):
    code, stream = c.shared().exec_run(["sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.1; done"], stream=True)
    equal((code, b"".join(stream)), (None, b"1\n2\n3\n"))


@cases("exec", [
    ("environment_dict", {"environment": {"A": "1 2"}}, "echo $A", "1 2\n"),
    ("environment_list", {"environment": ["A=x", "B=y"]}, "echo $A$B", "xy\n"),
    ("workdir", {"workdir": "/tmp"}, "pwd", "/tmp\n"),
    ("user_name", {"user": "daemon"}, "id -un", "daemon\n"),
    ("user_and_group_ids", {"user": "1000:2000"}, "id -u; id -g", "1000\n2000\n"),
    ("terminal", {"tty": True}, "test -t 1 && echo yes", "yes\r\n"),
    ("no_terminal", {}, "test -t 1 || echo no", "no\n"),
    ("the_containers_processes", {}, "tr '\\0' ' ' < /proc/1/cmdline | grep -c 'echo ready'", "1\n"),
    ("the_containers_environment", {}, "echo $HOSTNAME | wc -c", "13\n"),
])
def has(c, options, script, wanted):
    equal(c.shared().exec_run(["sh", "-c", script], **options).output.decode(), wanted)


@check("exec")
def takes_stdin(c):
    made = c.api.exec_create(c.shared().id, ["sh", "-c", "read line; echo got $line"], stdin=True)
    connection = c.api.exec_start(made["Id"], socket=True)
    raw = connection._sock if hasattr(connection, "_sock") else connection
    raw.sendall(b"hello\n")
    received = b""
    while True:
        chunk = raw.recv(4096)
        if not chunk:
            break
        received += chunk
    equal(received[8:], b"got hello\n")
    connection.close()


@check("exec")
def detaches(c):
    where = f"/tmp/{c.name()}"
    assert not c.shared().exec_run(["sh", "-c", f"echo done > {where}"], detach=True).output
    until(lambda: c.shared().exec_run(["cat", where]).output == b"done\n")


@check("exec")
def is_inspected(c):
    made = c.api.exec_create(c.shared().id, ["sh", "-c", "sleep 0.5; exit 5"], user="1000")
    before = c.api.exec_inspect(made["Id"])
    equal((before["Running"], before["ExitCode"], before["ContainerID"]), (False, None, c.shared().id))
    equal((before["ProcessConfig"]["entrypoint"], before["ProcessConfig"]["arguments"], before["ProcessConfig"]["user"]), ("sh", ["-c", "sleep 0.5; exit 5"], "1000"))
    c.api.exec_start(made["Id"], detach=True)
    until(lambda: c.api.exec_inspect(made["Id"])["ExitCode"] == 5)
    equal(c.api.exec_inspect(made["Id"])["Running"], False)


@check("exec")
def is_listed_in_the_container(c):
    made = c.api.exec_create(c.shared().id, ["sleep", "60"])
    c.api.exec_start(made["Id"], detach=True)
    until(lambda: c.api.exec_inspect(made["Id"])["Running"])
    assert made["Id"] in (c.api.inspect_container(c.shared().id)["ExecIDs"] or [])


@check("exec")
def resizes_its_terminal(c):
    made = c.api.exec_create(c.shared().id, ["sh", "-c", "while [ \"$(stty size)\" != '33 77' ]; do sleep 0.1; done; echo sized"], tty=True, stdin=True)
    stream = c.api.exec_start(made["Id"], tty=True, stream=True)
    until(lambda: c.api.exec_inspect(made["Id"])["Running"])
    c.api.exec_resize(made["Id"], height=33, width=77)
    assert b"sized" in b"".join(stream)


@check("exec")
def tells_a_command_that_is_not_there(c):
    code, output = c.shared().exec_run("nosuchcommand")
    assert code in (126, 127), code
    assert b"not found" in output, output


@check("exec")
def needs_a_running_container(c):
    with raises(409, "is not running"):
        c.create().exec_run("true")


@check("exec")
def needs_a_container_that_is_not_paused(c):
    made = c.start()
    made.pause()
    with raises(409, "is paused"):
        made.exec_run("true")
    made.unpause()


@check("exec")
def unknown_ones_are_404(c):
    with raises(404, "No such exec instance"):
        c.api.exec_inspect("nosuch")
    with raises(404, "No such exec instance"):
        c.api.exec_start("nosuch", detach=True)
    with raises(404, "No such container"):
        c.api.exec_create("nosuch", "true")


@check("exec")
def needs_a_command(c):
    with raises(400, "(?i)no exec command specified"):
        c.api.exec_create(c.shared().id, [])


@check("exec")
def cannot_be_started_twice(c):
    made = c.api.exec_create(c.shared().id, "true")
    c.api.exec_start(made["Id"])
    with raises(409, "has already run|is already running|not running"):
        c.api.exec_start(made["Id"], detach=True)


@check("exec")
def delivers_much_output(c):
    code, output = c.shared().exec_run(["seq", "1", "50000"])
    equal((code, len(output), output[-6:]), (0, 288894, b"50000\n"))
