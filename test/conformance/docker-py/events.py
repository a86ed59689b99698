import json
import threading
import time

from harness import IMAGE, check, equal, until


def names(stream):
    return [f"{event['Type']} {event['Action'].split(':')[0]}" for event in stream]


@check("events")
def tell_a_life_in_order(c):
    since = time.time() - 0.01
    made = c.start("true", labels={"who": "me"})
    made.wait()
    made.remove()
    seen = [event for event in c.client.events(since=since, until=time.time() + 0.5, decode=True, filters={"container": made.id})]
    equal([name for name in names(seen) if name.startswith("container")], ["container create", "container start", "container die", "container destroy"])
    attributes = seen[0]["Actor"]["Attributes"]
    equal((attributes["image"], attributes["who"], attributes["name"]), (IMAGE, "me", made.name))
    die = next(event for event in seen if event["Action"] == "die")
    equal(die["Actor"]["Attributes"]["exitCode"], "0")
    assert die["timeNano"] // 10**9 == die["time"] and die["scope"] == "local"


@check("events")
def filter_by_event_type_and_label(c):
    since = time.time() - 0.01
    made = c.create(labels={"pick": "me"})
    other = c.create()
    ask = lambda **filters: [event["Actor"]["ID"] for event in c.client.events(since=since, until=time.time() + 0.2, decode=True, filters=filters)]
    equal(ask(event="create", label="pick=me"), [made.id])
    equal(set(ask(type="container", event="create")), {made.id, other.id})
    equal(ask(type="network", event="nosuch"), [])
    equal(ask(event="create", container=other.name), [other.id])


@check("events")
def stream_as_they_happen(c):
    stream = c.client.events(decode=True, filters={"type": "volume"})
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(iter(lambda: next(stream, None), None)), daemon=True)
    reader.start()
    volume = c.volume()
    until(lambda: any(event["Actor"]["ID"] == volume.name and event["Action"] == "create" for event in list(seen)), 10)
    stream.close()


@check("events")
def come_as_json_lines(c):
    since = time.time() - 0.01
    made = c.create()
    lines = [line for chunk in c.client.events(since=since, until=time.time() + 0.2, filters={"container": made.id}) for line in chunk.decode().splitlines() if line]
    equal([json.loads(line)["Action"] for line in lines], ["create"])
    equal(json.loads(lines[0])["id"], made.id)
    equal(json.loads(lines[0])["from"], IMAGE)


@check("events")
def tell_kill_stop_and_restart(c):
    since = time.time() - 0.01
    made = c.start(["sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"])
    until(made.logs)
    made.kill("CONT")
    made.restart(timeout=5)
    made.stop(timeout=5)
    seen = [name for name in names(c.client.events(since=since, until=time.time() + 0.5, decode=True, filters={"container": made.id, "type": "container"}))]
    for one in ("kill", "die", "stop", "restart", "start"):
        assert f"container {one}" in seen, f"{one} is not in {seen}"
    equal(seen.count("container start"), 2)


@check("events")
def tell_exec_rename_pause(c):
    since = time.time() - 0.01
    made = c.start()
    made.exec_run("true")
    made.rename(c.name())
    made.pause()
    made.unpause()
    seen = lambda: names(c.client.events(since=since, until=time.time() + 0.3, decode=True, filters={"container": made.id, "type": "container"}))
    wanted = ["create", "start", "exec_create", "exec_start", "exec_die", "rename", "pause", "unpause"]
    until(lambda: set(f"container {one}" for one in wanted) <= set(seen()), 10)


@check("events")
def tell_images(c):
    since = time.time() - 0.01
    name = c.name()
    c.client.images.get(IMAGE).tag(name, "1")
    c.client.images.remove(f"{name}:1")
    seen = names(c.client.events(since=since, until=time.time() + 0.2, decode=True, filters={"type": "image"}))
    assert "image tag" in seen and "image untag" in seen, seen


@check("events")
def tell_networks_and_volumes(c):
    since = time.time() - 0.01
    network, volume = c.network(), c.volume()
    made = c.create(network=network.name)
    made.start()
    made.remove(force=True)
    network.remove()
    volume.remove()
    seen = names(c.client.events(since=since, until=time.time() + 0.5, decode=True))
    for one in ("network create", "network connect", "network disconnect", "network destroy", "volume create", "volume destroy"):
        assert one in seen, f"{one} is not in {seen}"
