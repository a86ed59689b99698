import os

import docker
from harness import IMAGE, check, equal, raises


@check("system")
def ping(c):
    equal(c.client.ping(), True)


@check("system")
def version(c):
    said = c.client.version()
    assert tuple(map(int, said["ApiVersion"].split("."))) >= (1, 41), said["ApiVersion"]
    equal(said["MinAPIVersion"].split(".")[0], "1")
    equal((said["Os"], said["Arch"]), ("linux", "amd64"))
    assert said["Version"] and said["KernelVersion"] and said["Components"][0]["Name"]


@check("system")
def info(c):
    said = c.client.info()
    for key in ("ID", "Name", "Driver", "ServerVersion", "OperatingSystem", "KernelVersion", "DockerRootDir", "CgroupVersion", "DefaultRuntime", "LoggingDriver"):
        assert said[key], f"{key} is empty"
    assert said["NCPU"] >= 1 and said["MemTotal"] > 1 << 20
    equal(said["OSType"], "linux")
    assert said["DefaultRuntime"] in said["Runtimes"]
    equal(said["Swarm"]["LocalNodeState"], "inactive")


@check("system")
def info_counts_containers(c):
    before = c.client.info()
    c.create()
    after = c.client.info()
    equal(after["Containers"], before["Containers"] + 1)
    equal(after["ContainersStopped"], before["ContainersStopped"] + 1)


@check("system")
def info_counts_running(c):
    c.shared()
    said = c.client.info()
    assert said["ContainersRunning"] >= 1 and said["Images"] >= 1
    equal(said["Containers"], said["ContainersRunning"] + said["ContainersPaused"] + said["ContainersStopped"])


@check("system")
def df(c):
    made = c.create()
    volume = c.volume()
    said = c.client.df()
    assert any(row["Id"] == made.id for row in said["Containers"])
    assert any(IMAGE in (row["RepoTags"] or []) and row["Size"] > 0 for row in said["Images"])
    assert any(row["Name"] == volume.name for row in said["Volumes"])
    assert said["LayersSize"] > 0


@check("system")
def negotiates_a_version(c):
    client = docker.from_env(version="auto")
    equal(client.ping(), True)
    equal(client.api.api_version, client.version()["ApiVersion"])
    client.close()


@check("system")
def speaks_an_old_version(c):
    client = docker.from_env(version="1.24")
    assert isinstance(client.containers.list(all=True), list)
    assert client.images.get(IMAGE).id
    client.close()


@check("system")
def refuses_a_version_that_is_too_new(c):
    client = docker.from_env(version="1.99")
    with raises(400, "too new"):
        client.info()
    client.close()


@check("system")
def is_no_swarm(c):
    with raises(503, "not a swarm manager"):
        c.api.inspect_swarm()
    with raises(503, "not a swarm manager"):
        c.client.services.list()
    with raises(503, "not a swarm manager"):
        c.client.nodes.list()


@check("system")
def has_no_plugins(c):
    equal(c.client.plugins.list(), [])
    with raises(404, "not found"):
        c.client.plugins.get("nosuch")


@check("system")
def login(c):
    """The registry of the suite wants no password, and says so."""
    equal(c.client.login("user", "secret", registry=os.environ["CONFORMANCE_REGISTRY"], reauth=True)["Status"], "Login Succeeded")
