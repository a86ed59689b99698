import docker.types
from harness import IMAGE, cases, check, equal, raises, until


@check("networks")
def predefined_ones(c):
    rows = {network.name: network.attrs for network in c.client.networks.list()}
    assert {"bridge", "host", "none"} <= set(rows)
    equal({name: rows[name]["Driver"] for name in ("bridge", "host", "none")}, {"bridge": "bridge", "host": "host", "none": "null"})
    equal(rows["bridge"]["Scope"], "local")
    assert rows["bridge"]["IPAM"]["Config"][0]["Subnet"]


@check("networks")
def create_and_inspect(c):
    name = c.name()
    network = c.network(name, driver="bridge", labels={"k": "v"}, internal=True)
    attributes = c.client.networks.get(name).attrs
    equal((attributes["Id"], attributes["Name"], attributes["Driver"], attributes["Internal"], attributes["Labels"], attributes["EnableIPv6"], attributes["Containers"]), (network.id, name, "bridge", True, {"k": "v"}, False, {}))
    assert attributes["IPAM"]["Config"][0]["Subnet"].count(".") == 3 and attributes["Created"] > "2020"
    equal(c.client.networks.get(network.id[:12]).id, network.id)


@check("networks")
def subnet_and_gateway(c):
    pool = docker.types.IPAMPool(subnet="10.213.7.0/24", gateway="10.213.7.1")
    network = c.network(ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    network.reload()
    equal(network.attrs["IPAM"]["Config"], [{"Subnet": "10.213.7.0/24", "Gateway": "10.213.7.1"}])
    made = c.start(network=network.name)
    made.reload()
    address = made.attrs["NetworkSettings"]["Networks"][network.name]
    assert address["IPAddress"].startswith("10.213.7."), address
    equal((address["Gateway"], address["IPPrefixLen"], address["NetworkID"]), ("10.213.7.1", 24, network.id))


@check("networks")
def list_filters(c):
    name, label = c.name(), c.name()
    network = c.network(name, labels={label: "v"})
    ids = lambda **filters: [one.id for one in c.client.networks.list(filters=filters)]
    equal(ids(name=name), [network.id])
    equal(ids(label=label), [network.id])
    equal(ids(label=f"{label}=v"), [network.id])
    equal(ids(id=network.id), [network.id])
    assert network.id in ids(type="custom") and network.id not in ids(type="builtin")
    assert network.id in ids(driver="bridge")
    equal(ids(name="nosuch-anywhere"), [])
    with raises(400, "(?i)invalid filter"):
        ids(nosuch="x")


@check("networks")
def names_resolve(c):
    network = c.network()
    server = c.start(network=network.name, name=c.name())
    other = c.start(network=network.name)
    server.reload()
    address = server.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"]
    code, output = other.exec_run(["sh", "-c", f"ping -c 1 -W 5 {server.name}"])
    assert code == 0 and address.encode() in output, output
    code, output = other.exec_run(["sh", "-c", f"ping -c 1 -W 5 {server.id[:12]}"])
    assert code == 0, output
    assert other.exec_run(["sh", "-c", "nslookup nosuch-name.invalid"]).exit_code != 0


@check("networks")
def aliases_resolve(c):
    network = c.network()
    server = c.create("sleep 600")
    network.connect(server, aliases=["db", "database"])
    server.start()
    other = c.start(network=network.name)
    for name in ("db", "database"):
        code, output = other.exec_run(["ping", "-c", "1", "-W", "5", name])
        assert code == 0, output
    server.reload()
    assert {"db", "database"} <= set(server.attrs["NetworkSettings"]["Networks"][network.name]["Aliases"])


@check("networks")
def connect_and_disconnect_while_running(c):
    network = c.network()
    server, made = c.start(network=network.name, name=c.name()), c.start()
    network.connect(made)
    made.reload()
    assert set(made.attrs["NetworkSettings"]["Networks"]) == {"bridge", network.name}
    until(lambda: made.exec_run(["ping", "-c", "1", "-W", "2", server.name]).exit_code == 0)
    network.disconnect(made)
    made.reload()
    equal(set(made.attrs["NetworkSettings"]["Networks"]), {"bridge"})
    until(lambda: made.exec_run(["sh", "-c", "ls /sys/class/net | grep -c eth"]).output == b"1\n")


@check("networks")
def a_chosen_address(c):
    pool = docker.types.IPAMPool(subnet="10.213.8.0/24")
    network = c.network(ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    made = c.create("sleep 600")
    c.client.networks.get("bridge").disconnect(made)
    network.connect(made, ipv4_address="10.213.8.77")
    made.start()
    made.reload()
    equal(made.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"], "10.213.8.77")
    assert b"10.213.8.77" in made.exec_run("ip addr").output


@check("networks")
def tells_its_containers(c):
    network = c.network()
    made = c.start(network=network.name, name=c.name())
    network.reload()
    row = network.attrs["Containers"][made.id]
    equal(row["Name"], made.name)
    assert row["IPv4Address"].count(".") == 3 and "/" in row["IPv4Address"] and row["MacAddress"].count(":") == 5
    equal([one.id for one in network.containers], [made.id])


@check("networks")
def networks_are_apart(c):
    first, second = c.network(), c.network()
    server, other = c.start(network=first.name, name=c.name()), c.start(network=second.name)
    server.reload()
    address = server.attrs["NetworkSettings"]["Networks"][first.name]["IPAddress"]
    assert other.exec_run(["ping", "-c", "1", "-W", "1", address]).exit_code != 0
    assert other.exec_run(["ping", "-c", "1", "-W", "1", server.name]).exit_code != 0


@check("networks")
def internal_has_no_way_out(c):
    network = c.network(internal=True)
    made, neighbour, outside = c.start(network=network.name), c.start(network=network.name, name=c.name()), c.start()
    outside.reload()
    equal(made.exec_run(["ping", "-c", "1", "-W", "5", neighbour.name]).exit_code, 0)
    assert made.exec_run(["ping", "-c", "1", "-W", "1", outside.attrs["NetworkSettings"]["IPAddress"]]).exit_code != 0


@check("networks")
def cannot_go_while_in_use(c):
    network = c.network()
    made = c.start(network=network.name)
    with raises(403, "has active endpoints"):
        network.remove()
    made.remove(force=True)
    network.remove()
    with raises(404, "(?i)network .* not found|No such network"):
        c.client.networks.get(network.id)


@check("networks")
def prune(c):
    label = c.name()
    network = c.network(labels={label: ""})
    equal(c.client.networks.prune(filters={"label": label})["NetworksDeleted"], [network.name])


@check("networks")
def a_name_may_be_asked_to_be_unique(c):
    network = c.network()
    with raises(409, f"network with name {network.name} already exists"):
        c.client.networks.create(network.name, check_duplicate=True)


@cases("networks", [
    ("remove_predefined", 403, "is a pre-defined network and cannot be removed", lambda c: c.api.remove_network("bridge")),
    ("create_predefined", 403, "operation is not permitted on predefined", lambda c: c.client.networks.create("bridge", check_duplicate=False)),
    ("unknown_driver", 404, "(?i)plugin \"?nosuch\"? not found|could not find", lambda c: c.client.networks.create(c.name(), driver="nosuch")),
    ("bad_subnet", 400, "(?i)invalid", lambda c: c.client.networks.create(c.name(), ipam=docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet="10.0.0.0/99")]))),
    ("inspect_unknown", 404, "(?i)nosuch", lambda c: c.client.networks.get("nosuch")),
    ("remove_unknown", 404, "(?i)nosuch", lambda c: c.api.remove_network("nosuch")),
    ("connect_unknown_network", 404, "(?i)nosuch", lambda c: c.api.connect_container_to_network(c.shared().id, "nosuch")),
    ("connect_unknown_container", 404, "(?i)no such container: nosuch", lambda c: c.api.connect_container_to_network("nosuch", c.network().id)),
    ("empty_name", 400, "(?i)name", lambda c: c.client.networks.create("")),
])
def refused(c, status, words, call):
    with raises(status, words):
        call(c)


@check("networks")
def overlapping_subnets_are_refused(c):
    config = lambda: docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet="10.213.9.0/24")])
    c.network(ipam=config())
    with raises(403, "(?i)overlaps"):
        c.client.networks.create(c.name(), ipam=config())


@check("networks")
def links_resolve(c):
    server = c.start(name=c.name())
    code, out, err = c.run("ping -c 1 -W 5 short > /dev/null && echo reached", links={server.name: "short"})
    assert (code, out) == (0, "reached\n"), (code, out, err)
