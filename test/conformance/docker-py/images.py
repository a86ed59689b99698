import io
import os

import docker.errors
from harness import IMAGE, cases, check, equal, raises, tar, untar

REGISTRY = os.environ.get("CONFORMANCE_REGISTRY", "")


def tagged(c, source=IMAGE):
    """A tag of its own for a check."""
    name = c.name()
    c.client.images.get(source).tag(name, "v1")
    c.later(c.client.images.remove, f"{name}:v1", force=True)
    return name


@check("images")
def get(c):
    image = c.client.images.get(IMAGE)
    assert image.id.startswith("sha256:") and IMAGE in image.tags
    equal(image.short_id, image.id[:17])
    attributes = image.attrs
    equal((attributes["Os"], attributes["Architecture"], attributes["RootFS"]["Type"], len(attributes["RootFS"]["Layers"])), ("linux", "amd64", "layers", 1))
    equal(attributes["Config"]["Cmd"], ["sh"])
    assert attributes["Size"] > 1_000_000 and attributes["Created"].startswith("2026-01-01T00:00:00")
    equal(c.client.images.get(image.id).id, image.id)
    equal(c.client.images.get(image.id[7:19]).id, image.id)


@cases("images", [
    ("inspect", lambda api: api.inspect_image("nosuch")), ("history", lambda api: api.history("nosuch")), ("remove", lambda api: api.remove_image("nosuch")), ("tag", lambda api: api.tag("nosuch", "x")),
    ("save", lambda api: next(api.get_image("nosuch"))),
])
def not_there(c, call):
    with raises(404, "(?i)no such image: nosuch"):
        call(c.api)


@check("images")
def list_with_filters(c):
    name = tagged(c)
    equal([image.id for image in c.client.images.list(name=name)], [c.client.images.get(IMAGE).id])
    assert f"{name}:v1" in c.client.images.list(filters={"reference": f"{name}:*"})[0].tags
    equal(c.client.images.list(filters={"reference": "nosuch*"}), [])
    equal(c.client.images.list(filters={"label": "nosuch"}), [])
    assert all(not image.tags for image in c.client.images.list(filters={"dangling": True}))


@check("images")
def list_rows(c):
    row = next(row for row in c.api.images() if IMAGE in (row["RepoTags"] or []))
    assert row["Id"].startswith("sha256:") and row["Size"] > 0 and row["Created"] > 0
    equal(row["Containers"], -1)


@check("images")
def list_refuses_unknown_filters(c):
    with raises(400, "(?i)invalid filter"):
        c.client.images.list(filters={"nosuch": "x"})


@check("images")
def tag_and_untag(c):
    name, image = c.name(), c.client.images.get(IMAGE)
    equal(image.tag(name, "one"), True)
    equal(image.tag(name), True)
    image.reload()
    assert f"{name}:one" in image.tags and f"{name}:latest" in image.tags
    c.client.images.remove(f"{name}:one")
    c.client.images.remove(name)
    image.reload()
    assert not any(name in tag for tag in image.tags)


@cases("images", [("upper_case", "Upper", "x"), ("bad_tag", "fine", "a b")])
def a_bad_tag(c, repository, tag):
    with raises(400, "(?i)invalid|must be lowercase"):
        c.api.tag(IMAGE, repository, tag)


@check("images")
def history(c):
    (row,) = c.client.images.get(IMAGE).history()
    equal(row["CreatedBy"], "test/lib/image.ts")
    assert row["Size"] > 0 and row["Id"].startswith("sha256:")


@check("images")
def import_a_tar(c):
    name = c.name()
    said = c.api.import_image_from_data(tar({"hello.txt": "hi\n"}), repository=name, tag="v1", changes=["CMD [\"/hello\"]"])
    c.later(c.client.images.remove, f"{name}:v1")
    assert "sha256:" in said, said
    image = c.client.images.get(f"{name}:v1")
    equal((image.attrs["Config"]["Cmd"], len(image.history())), (["/hello"], 1))


@check("images")
def save_and_load(c):
    name = tagged(c)
    data = b"".join(c.client.images.get(f"{name}:v1").save(named=f"{name}:v1"))
    files = untar([data])
    assert "manifest.json" in files and f"{name}:v1".encode() in files["manifest.json"]
    c.client.images.remove(f"{name}:v1")
    (image,) = c.client.images.load(data)
    assert f"{name}:v1" in image.tags
    equal(image.id, c.client.images.get(IMAGE).id)


@check("images")
def load_refuses_what_is_no_image(c):
    try:
        c.client.images.load(tar({"a": "b"}))
    except (docker.errors.APIError, docker.errors.ImageLoadError):
        return
    raise AssertionError("no error")


@check("images")
def remove_needs_force_when_used(c):
    name = c.name()
    c.api.import_image_from_data(tar({"bin/x": name}), repository=name, tag="v1", changes=["CMD [\"/bin/x\"]"])
    c.later(c.client.images.remove, f"{name}:v1", force=True)
    image = c.client.images.get(f"{name}:v1")
    made = c.create(None, f"{name}:v1")
    with raises(409, "conflict: unable to (remove repository reference|delete)"):
        c.client.images.remove(f"{name}:v1")
    with raises(409, "conflict: unable to (delete|remove)"):
        c.client.images.remove(image.id)
    made.remove()
    c.client.images.remove(f"{name}:v1")
    with raises(404, "(?i)no such image"):
        c.client.images.get(image.id)


@check("images")
def prune_dangling(c):
    name = c.name()
    for text in ("old", "new"):
        c.api.import_image_from_data(tar({"x": name + text}), repository=name, tag="v1")
    c.later(c.client.images.remove, f"{name}:v1")
    dangling = {image.id for image in c.client.images.list(filters={"dangling": True})}
    assert dangling
    said = c.client.images.prune(filters={"dangling": True})
    assert dangling <= {row.get("Deleted") for row in said["ImagesDeleted"]}, said
    equal(c.client.images.list(filters={"dangling": True}), [])


@check("images")
def push_and_pull(c):
    name = f"{REGISTRY}/{c.name()}"
    c.client.images.get(IMAGE).tag(name, "v1")
    lines = list(c.client.images.push(name, "v1", stream=True, decode=True))
    assert not any("error" in line for line in lines), lines
    digest = next(line["aux"]["Digest"] for line in lines if "aux" in line)
    c.client.images.remove(f"{name}:v1")
    image = c.client.images.pull(name, "v1")
    c.later(c.client.images.remove, image.tags[-1] if image.tags else image.id)
    c.later(c.client.images.remove, f"{name}:v1")
    equal(image.id, c.client.images.get(IMAGE).id)
    assert f"{name}@{digest}" in image.attrs["RepoDigests"], image.attrs["RepoDigests"]
    equal(c.client.images.get(f"{name}@{digest}").id, image.id)
    equal(c.client.images.get_registry_data(f"{name}:v1").id, digest)


@check("images")
def pull_by_digest(c):
    image = c.client.images.pull(f"{REGISTRY}/{os.environ['CONFORMANCE_REMOTE']}", "1")
    c.later(c.client.images.remove, f"{REGISTRY}/{os.environ['CONFORMANCE_REMOTE']}:1")
    (digest,) = [one for one in image.attrs["RepoDigests"] if os.environ["CONFORMANCE_REMOTE"] in one]
    c.client.images.remove(f"{REGISTRY}/{os.environ['CONFORMANCE_REMOTE']}:1")
    again = c.client.images.pull(digest)
    c.later(c.client.images.remove, digest)
    equal(again.id, image.id)


@check("images")
def pull_progress(c):
    name = f"{REGISTRY}/{os.environ['CONFORMANCE_REMOTE']}"
    lines = list(c.api.pull(name, "1", stream=True, decode=True))
    c.later(c.client.images.remove, f"{name}:1")
    equal(lines[0]["status"], f"Pulling from {os.environ['CONFORMANCE_REMOTE']}")
    assert any(line["status"].startswith("Digest: sha256:") for line in lines), lines
    assert lines[-1]["status"] in (f"Status: Downloaded newer image for {name}:1", f"Status: Image is up to date for {name}:1"), lines[-1]


@check("images")
def pull_what_is_not_there(c):
    with raises(404, "(?i)not found|manifest unknown"):
        c.client.images.pull(f"{REGISTRY}/nosuch", "1")


@check("images")
def build_a_dockerfile(c):
    name = c.name()
    text = f"FROM {IMAGE}\nARG WORD=none\nENV SAID=$WORD\nLABEL built=yes\nRUN echo made > /made\nWORKDIR /srv\nCMD [\"sh\", \"-c\", \"cat /made; echo $SAID; pwd\"]\n"
    image, log = c.client.images.build(fileobj=io.BytesIO(text.encode()), tag=f"{name}:v1", buildargs={"WORD": "hello"}, rm=True)
    c.later(c.client.images.remove, f"{name}:v1", force=True)
    assert any("Step 1" in line.get("stream", "") for line in log) or list(log) is not None
    equal(image.labels["built"], "yes")
    equal(c.client.containers.run(f"{name}:v1", remove=True), b"made\nhello\n/srv\n")


@check("images")
def build_with_a_context(c):
    name = c.name()
    context = tar({"Dockerfile": f"FROM {IMAGE}\nCOPY data.txt /data/\n", "data.txt": "from the context\n"})
    image, _ = c.client.images.build(fileobj=io.BytesIO(context), custom_context=True, tag=f"{name}:v1", rm=True)
    c.later(c.client.images.remove, f"{name}:v1", force=True)
    equal(c.client.containers.run(image.id, ["cat", "/data/data.txt"], remove=True), b"from the context\n")


@check("images")
def build_tells_a_step_that_fails(c):
    try:
        c.client.images.build(fileobj=io.BytesIO(f"FROM {IMAGE}\nRUN exit 3\n".encode()), rm=True, forcerm=True)
    except docker.errors.BuildError as error:
        assert "returned a non-zero code: 3" in str(error) or "exit status 3" in str(error), error
        return
    raise AssertionError("no error")


@check("images")
def build_refuses_a_bad_dockerfile(c):
    with raises(400, "(?i)dockerfile parse error|unknown instruction"):
        c.client.images.build(fileobj=io.BytesIO(b"NOSUCH thing\n"))
