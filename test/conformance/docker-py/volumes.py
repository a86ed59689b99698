import tempfile
from pathlib import Path

from docker.types import Mount
from harness import IMAGE, cases, check, equal, raises


@check("volumes")
def create_and_inspect(c):
    name = c.name()
    volume = c.volume(name, labels={"k": "v"})
    attributes = c.client.volumes.get(name).attrs
    equal((attributes["Name"], attributes["Driver"], attributes["Scope"], attributes["Labels"]), (name, "local", "local", {"k": "v"}))
    assert attributes["Mountpoint"].startswith("/") and name in attributes["Mountpoint"] and attributes["CreatedAt"] > "2020"
    equal(volume.id, name)


@check("volumes")
def get_a_name_when_none_is_given(c):
    volume = c.client.volumes.create()
    c.later(volume.remove)
    equal(len(volume.name), 64)


@check("volumes")
def creating_twice_is_one(c):
    volume = c.volume(labels={"first": "yes"})
    again = c.client.volumes.create(volume.name)
    equal((again.name, again.attrs["Labels"]), (volume.name, {"first": "yes"}))


@check("volumes")
def list_with_filters(c):
    label = c.name()
    volume, other = c.volume(labels={label: "v"}), c.volume()
    names = lambda **filters: {one.name for one in c.client.volumes.list(filters=filters)}
    assert {volume.name, other.name} <= names()
    equal(names(label=label), {volume.name})
    equal(names(label=f"{label}=v"), {volume.name})
    equal(names(name=other.name), {other.name})
    assert volume.name in names(dangling=True) and volume.name not in names(dangling=False)
    assert volume.name in names(driver="local")


@check("volumes")
def keep_data_between_containers(c):
    volume = c.volume()
    equal(c.run("echo kept > /data/file", volumes={volume.name: {"bind": "/data", "mode": "rw"}})[0], 0)
    equal(c.run("cat /data/file", mounts=[Mount("/data", volume.name)])[1], "kept\n")


@check("volumes")
def are_shared_while_running(c):
    volume = c.volume()
    first, second = (c.start(volumes={volume.name: {"bind": "/data"}}) for _ in range(2))
    first.exec_run(["sh", "-c", "echo one > /data/f"])
    equal(second.exec_run("cat /data/f").output, b"one\n")
    second.exec_run(["sh", "-c", "echo two >> /data/f"])
    equal(first.exec_run("cat /data/f").output, b"one\ntwo\n")


@check("volumes")
def get_a_copy_of_the_image_directory(c):
    volume = c.volume()
    equal(c.run("test -e /etc/passwd && cat /etc/group | head -n 1", volumes={volume.name: {"bind": "/etc"}})[1], "root:x:0:\n")
    equal(c.run("ls /v/passwd", volumes={volume.name: {"bind": "/v"}})[1], "/v/passwd\n")


@check("volumes")
def no_copy_when_told(c):
    volume = c.volume()
    equal(c.run("ls /home/user/.. | wc -l; ls /home | wc -l", mounts=[Mount("/home", volume.name, no_copy=True)])[1].split()[-1], "0")


@check("volumes")
def read_only(c):
    volume = c.volume()
    code, out, _ = c.run("touch /data/x 2> /dev/null || echo ro; mount -o remount,rw /data 2> /dev/null; touch /data/y 2> /dev/null || echo ro", volumes={volume.name: {"bind": "/data", "mode": "ro"}})
    equal(out, "ro\nro\n")


@check("volumes")
def are_told_in_the_container(c):
    volume = c.volume()
    made = c.create(volumes={volume.name: {"bind": "/data", "mode": "ro"}})
    (mount,) = made.attrs["Mounts"]
    equal((mount["Type"], mount["Name"], mount["Destination"], mount["Driver"], mount["RW"], mount["Source"]), ("volume", volume.name, "/data", "local", False, volume.attrs["Mountpoint"]))
    equal(made.attrs["HostConfig"]["Binds"], [f"{volume.name}:/data:ro"])


@check("volumes")
def come_into_being_by_use(c):
    name = c.name()
    made = c.create(volumes={name: {"bind": "/data"}})
    c.later(c.api.remove_volume, name)
    equal(c.client.volumes.get(name).name, name)
    made.remove(v=True)
    equal(c.client.volumes.get(name).name, name)


@check("volumes")
def anonymous_ones_go_with_v(c):
    made = c.create(volumes=["/data"])
    (mount,) = made.attrs["Mounts"]
    equal((mount["Type"], len(mount["Name"]), mount["Destination"]), ("volume", 64, "/data"))
    made.remove(v=True)
    with raises(404, "(?i)no such volume"):
        c.client.volumes.get(mount["Name"])


@check("volumes")
def anonymous_ones_stay_without_v(c):
    made = c.create(volumes=["/data"])
    (mount,) = made.attrs["Mounts"]
    made.remove()
    c.client.volumes.get(mount["Name"]).remove()


@check("volumes")
def cannot_go_while_in_use(c):
    volume = c.volume()
    made = c.create(volumes={volume.name: {"bind": "/data"}})
    with raises(409, f"volume is in use - \\[{made.id}\\]"):
        volume.remove()
    made.remove()
    volume.remove()
    with raises(404, "(?i)no such volume"):
        volume.reload()


@check("volumes")
def prune(c):
    label = c.name()
    volume = c.volume(labels={label: ""})
    # From API 1.42 named ones are kept unless `all` is said, which older daemons do not know.
    every = {"all": True} if tuple(map(int, c.api.api_version.split("."))) >= (1, 42) else {}
    equal(c.client.volumes.prune(filters={"label": label, **every})["VolumesDeleted"], [volume.name])


@cases("volumes", [
    ("bad_name", 400, "(?i)includes invalid characters", lambda c: c.client.volumes.create("a b")),
    ("short_name", 400, "(?i)too short", lambda c: c.client.volumes.create("a")),
    ("unknown_driver", 404, "(?i)nosuch", lambda c: c.client.volumes.create(c.name(), driver="nosuch")),
    ("inspect_unknown", 404, "(?i)no such volume", lambda c: c.client.volumes.get("nosuch")),
    ("remove_unknown", 404, "(?i)no such volume", lambda c: c.api.remove_volume("nosuch")),
])
def refused(c, status, words, call):
    with raises(status, words):
        call(c)


@check("volumes")
def a_bind_mount_is_live(c):
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "in").write_text("from the host\n")
        made = c.start(volumes={directory: {"bind": "/host", "mode": "rw"}})
        equal(made.exec_run("cat /host/in").output, b"from the host\n")
        equal(made.exec_run(["sh", "-c", "echo from inside > /host/out"]).exit_code, 0)
        equal(Path(directory, "out").read_text(), "from inside\n")
        Path(directory, "in").write_text("changed\n")
        equal(made.exec_run("cat /host/in").output, b"changed\n")
        (mount,) = made.attrs["Mounts"]
        equal((mount["Type"], mount["Source"], mount["Destination"], mount["RW"]), ("bind", directory, "/host", True))
        made.remove(force=True)


@check("volumes")
def a_bind_mount_may_be_read_only(c):
    with tempfile.TemporaryDirectory() as directory:
        equal(c.run("touch /host/x 2> /dev/null || echo ro", volumes={directory: {"bind": "/host", "mode": "ro"}})[1], "ro\n")


@check("volumes")
def a_file_may_be_bound(c):
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("one file\n")
        file.flush()
        equal(c.run("cat /etc/one", volumes={file.name: {"bind": "/etc/one", "mode": "ro"}})[1], "one file\n")


@check("volumes")
def a_missing_bind_source_is_made(c):
    with tempfile.TemporaryDirectory() as directory:
        equal(c.run("echo x > /host/x", volumes={f"{directory}/new": {"bind": "/host"}})[0], 0)
        equal(Path(directory, "new", "x").read_text(), "x\n")


@check("volumes")
def tmpfs_mounts(c):
    code, out, _ = c.run("df -k /t | tail -n 1 | awk '{print $2}'; stat -c %a /t", mounts=[Mount("/t", None, type="tmpfs", tmpfs_size=1 << 20, tmpfs_mode=0o1770)])
    equal((code, out), (0, "1024\n1770\n"))
