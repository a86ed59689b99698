"""What the checks share: how one is declared, what it gets, and how they are run.

A check is a function with one parameter, a Context. It fails by raising. Whatever it made through the context is removed after it, so checks do not see each other.
"""
import contextlib
import io
import itertools
import json
import os
import re
import sys
import tarfile
import time
import traceback

import docker
import docker.errors

IMAGE = "test/busybox:1"
CHECKS = []


def check(area):
    """Declares a check; its name is the function's, its sentence the first line of the docstring."""

    def declare(function):
        CHECKS.append((f"{area}/{function.__name__}", function))
        return function

    return declare


def cases(area, rows):
    """Declares one check for each row of a table; the first member of a row is its name, the rest are the function's arguments."""

    def declare(function):
        for name, *arguments in rows:
            CHECKS.append((f"{area}/{function.__name__}:{name}", lambda c, arguments=arguments: function(c, *arguments)))
        return function

    return declare


class Context:
    """A client, and what a check makes with it."""

    numbers = itertools.count(1)
    prefix = f"py{os.getpid()}"

    def __init__(self, client):
        self.client, self.api = client, client.api
        self.stack = contextlib.ExitStack()

    def name(self):
        return f"{self.prefix}-{next(self.numbers)}"

    def later(self, function, *arguments, **options):
        """Clean-up: what is gone already is fine."""

        def quiet():
            with contextlib.suppress(docker.errors.APIError):
                function(*arguments, **options)

        self.stack.callback(quiet)

    def create(self, command="true", image=IMAGE, **options):
        made = self.client.containers.create(image, command, **options)
        self.later(self.api.remove_container, made.id, force=True, v=True)
        return made

    def start(self, command="sleep 600", image=IMAGE, **options):
        made = self.create(command, image, **options)
        made.start()
        return made

    def run(self, script, image=IMAGE, **options):
        """Runs a shell script to its end: (exit code, stdout, stderr), as text."""
        made = self.start(["sh", "-c", script], image, **options)
        code = made.wait(timeout=120)["StatusCode"]
        return code, made.logs(stdout=True, stderr=False).decode(), made.logs(stdout=False, stderr=True).decode()

    def shared(self):
        """One running container for all checks that only look, or run something in it."""
        if not hasattr(Context, "_shared"):
            Context._shared = self.client.containers.run(IMAGE, ["sh", "-c", "echo ready; echo warn >&2; trap 'exit 0' TERM; while :; do sleep 0.2; done"], name=f"{self.prefix}-shared", labels={"shared": "yes"}, ports={"80/tcp": None}, detach=True)
            until(lambda: b"ready" in Context._shared.logs())
        return Context._shared

    def volume(self, name=None, **options):
        made = self.client.volumes.create(name or self.name(), **options)
        self.later(made.remove, force=True)
        return made

    def network(self, name=None, **options):
        made = self.client.networks.create(name or self.name(), **options)
        self.later(made.remove)
        return made


@contextlib.contextmanager
def raises(status, words="", error=docker.errors.APIError):
    """The block must fail with this HTTP status and a message that holds `words` (a regular expression)."""
    try:
        yield
    except error as caught:
        assert caught.response is not None, f"no HTTP answer: {caught}"
        assert caught.response.status_code == status, f"{caught.response.status_code} {caught.explanation}, not {status}"
        assert re.search(words, str(caught.explanation)), f"{caught.explanation!r} does not say {words!r}"
        return
    raise AssertionError(f"no error, where {status} {words!r} should be")


def until(probe, seconds=30):
    """Calls `probe` until it gives something true, which is returned."""
    end = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def equal(found, wanted):
    assert found == wanted, f"{found!r}, not {wanted!r}"


def at(value, path):
    """attrs['A']['B'] by 'A.B'."""
    for key in path.split("."):
        value = value[key]
    return value


def tar(files):
    """A tar of {name: text}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 1_700_000_000
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def untar(chunks):
    """{name: bytes or None} of a tar that came in pieces."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        return {entry.name: archive.extractfile(entry).read() if entry.isfile() else None for entry in archive}


def main():
    """`--list` prints the names; else runs the checks (all, or those whose name fits a pattern) and prints one JSON object for each."""
    if sys.argv[1:] == ["--list"]:
        print(json.dumps([name for name, _ in CHECKS]))
        return
    wanted = re.compile(sys.argv[1] if len(sys.argv) > 1 else "")
    client = docker.from_env(timeout=60)
    for name, function in CHECKS:
        if not wanted.search(name):
            continue
        context, started, error = Context(client), time.monotonic(), None
        try:
            with context.stack:
                function(context)
        except Exception:  # a check may fail in any way, and the next one runs all the same
            lines = traceback.format_exc().strip().split("\n")
            where = [line.strip() for line in lines if "/docker-py/" in line and "harness.py" not in line]
            error = "\n".join([lines[-1], *where[-1:]])
        print(json.dumps({"name": name, "ms": round((time.monotonic() - started) * 1000), "error": error}), flush=True)
    if hasattr(Context, "_shared"):
        Context._shared.remove(force=True, v=True)
