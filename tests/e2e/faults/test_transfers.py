"""Transfers that go wrong, seen by the user of a mount: F47, F49, F54, F55 and F57 to F59 of the fault catalogue.

The variants of a fault run at once, each with a registry of its own. Every app is read both as a file of its rootfs
and as a blob.
"""

from __future__ import annotations

import functools
import gzip
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs.model.digest import Digest
from tests.e2e.conftest import becomes
from tests.e2e.faults.conftest import by_both_drivers
from tests.support.after_faults import MEMORY_LIMIT
from tests.support.cache import blobs_in, files_in
from tests.support.fault_server import (
    Action,
    Connection,
    FaultServer,
    Response,
    Seen,
    changed,
    cut,
    raw,
    reply,
    reset,
)
from tests.support.faulty_mount import FaultyMount
from tests.support.images import BuiltImage, file, layer
from tests.support.memory_registry import MemoryRegistry, blob_response
from tests.support.shorter_waits import WAIT_S
from tests.support.variants import all_at_once

SIZE = 200_000
CUT = 90_000


class App:
    """An app with a layer of 200 kB below a layer with one small file, in a registry of its own."""

    def __init__(self, faulty: FaultyMount, server: FaultServer | None = None) -> None:
        self.faulty = faulty
        self.server = server or faulty.new_server()
        self.image: BuiltImage = faulty.push_app(
            server=self.server, random_bytes=SIZE, above=[layer(file("top", b"top"))]
        )
        self.digest = str(self.image.layers[0].digest)
        self.content = self.image.layers[0].blob
        self.blob = self.path(f"blobs/{self.digest}")
        self.motd = self.path("rootfs/motd")

    def path(self, name: str) -> Path:
        return self.faulty.path(f"app/1/{name}", server=self.server)

    def on(self, action: Action, *, times: int | None = None, after: int = 0) -> None:
        """Let *action* answer requests for the big layer."""
        self.server.on("GET", f"/blobs/{self.digest}", action, times=times, after=after)

    def requests(self) -> int:
        """Return how often the big layer was asked for."""
        return len(self.server.paths(f"GET .*/blobs/{self.digest}"))

    def ranges(self) -> list[str | None]:
        """Return the ranges of the big layer that were asked for."""
        return self.server.headers("range", f"GET .*/blobs/{self.digest}")

    def reads(self) -> bool:
        """Tell whether the layer has its right bytes, as a file and as a blob."""
        return self.faulty.reads(self.motd) and self.blob.read_bytes() == self.content

    def rest_is_fine(self) -> bool:
        """Tell whether the other layer of the image can be read."""
        return self.path("layers/1/tree/top").read_bytes() == b"top"

    def is_cached(self) -> bool:
        """Tell whether the cache has anything of the big layer."""
        diff_id = self.image.layers[0].diff_id.encoded
        return self.digest in blobs_in(self.faulty.cache) or any(
            diff_id in path.name for path in files_in(self.faulty.cache)
        )

    def is_refused(self, *, errno: str = "EIO") -> None:
        """Insist that reading the layer fails, that nothing of it is kept, and that the rest of the image is fine."""
        assert self.faulty.fails(self.path("rootfs"), os.listdir) == errno
        self.is_refused_as_a_blob(errno=errno)

    def is_refused_as_a_blob(self, *, errno: str = "EIO") -> None:
        """Insist on the same, without asking for its files."""
        assert self.faulty.fails(self.blob, Path.read_bytes) == errno
        assert not self.is_cached()
        assert self.digest in self.faulty.errors()
        assert self.rest_is_fine()

    def heals(self) -> None:
        """Let the server behave, and insist that the blob is there at once: wrong layers are refused for longer."""
        self.server.heal()
        assert self.blob.read_bytes() == self.content


def chunked(body: bytes, *, whole: bool) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:50_000], body[50_000:]) if part)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + (b"0\r\n\r\n" if whole else b"")


def made_of_the_body(make: Callable[[bytes], bytes]) -> Action:
    """Send what *make* makes of the right body, and close."""
    return lambda connection: raw(make(connection.right().body))(connection)


CUTS = {
    "with length": cut(CUT),
    "reset": reset(CUT),
    "in chunks": made_of_the_body(lambda body: chunked(body[:CUT], whole=False)),
}


def test_f47_a_transfer_that_breaks_off_goes_on_where_it_was(faulty: FaultyMount) -> None:
    faulty.mount()

    def check(name: str, action: Action) -> None:
        app = App(faulty)
        app.on(action, times=1)
        assert faulty.reads(app.motd)
        first, second = app.ranges()
        assert first is None
        if name != "reset":  # which may take bytes with it that were on their way
            assert second is not None
            assert 0 < int(second.removeprefix("bytes=").partition("-")[0]) <= CUT
        app.server.heal()
        app.on(action, times=1)
        assert app.blob.read_bytes() == app.content
        assert app.requests() == 4

    all_at_once(check, CUTS)
    assert faulty.errors() == ""


def flipped(position: int) -> Action:
    """Answer what is right but for one bit of the byte at *position*."""

    def flip(right: Response) -> Response:
        body = bytearray(right.body)
        body[position] ^= 1
        return Response(right.status, right.headers, bytes(body))

    return changed(flip)


@by_both_drivers
def test_f49_a_flipped_bit_is_an_error_for_cp_and_nothing_of_it_is_kept(faulty: FaultyMount, tmp_path: Path) -> None:
    faulty.mount()

    def check(name: str, position: int) -> None:
        app = App(faulty)
        app.on(flipped(position))
        copy = tmp_path / f"copy of {name}"
        assert subprocess.run(["cp", app.blob, copy], check=False, capture_output=True).returncode != 0
        assert not copy.exists() or copy.read_bytes() == b""
        app.server.heal()
        app.on(flipped(position))
        app.is_refused()
        asked, begun_s = app.requests(), time.monotonic()
        assert asked == 2 * 3  # by cp, by the blob and by the rootfs, each once more after the first wrong bytes
        for name in ("motd", "etc", "etc/hosts", "top"):
            assert faulty.fails(app.path(f"rootfs/{name}"), os.stat) == "EIO"
        periods = 1 + (time.monotonic() - begun_s) // WAIT_S
        assert app.requests() <= asked + 2 * periods, "a wrong layer is fetched again for each name below it"
        app.heals()
        faulty.recovers(app.motd)

    all_at_once(check, {"the middle": SIZE // 2, "the last byte": -1})


def encoded(encode: Callable[[bytes], bytes], name: str = "gzip") -> Action:
    """Answer the whole blob as *encode* makes it, and say that *name* was done to it."""
    return changed(lambda right: Response(200, (("Content-Encoding", name),), encode(right.body)))


@functools.cache
def bomb() -> bytes:
    """Return what decodes to as many zeros as no process of a mount may have in memory."""
    return gzip.compress(bytes(MEMORY_LIMIT), 1)


WRONGLY_ENCODED = {
    "bomb": encoded(lambda _body: bomb()),
    "junk": encoded(lambda _body: b"\x1f\x8b" + bytes(1000)),
    "cut": encoded(lambda body: gzip.compress(body)[:-1000]),
}


def test_f54_an_encoded_body_that_is_wrong_is_refused_in_bounded_memory(faulty: FaultyMount) -> None:
    faulty.mount()

    def check(_name: str, action: Action) -> None:
        app = App(faulty)
        app.on(action)
        app.is_refused()
        app.heals()

    all_at_once(check, WRONGLY_ENCODED)


class Storage:
    """An object store, which asks for a signature, and knows the blobs of a registry."""

    def __init__(self, registry: MemoryRegistry, refusal: Response) -> None:
        self.refusal = refusal
        self.valid: dict[str, str] = {}
        self._registry = registry

    def respond(self, seen: Seen) -> Response:
        digest, _, signature = seen.path.removeprefix("/").partition("?signature=")
        if signature != self.valid[digest]:
            return self.refusal
        return blob_response(self._registry.repository("app").blobs[digest], digest, seen.headers.get("range"))


class Redirected(App):
    """An app in a registry that wants a password and redirects blobs to a storage, with another signature each time."""

    def __init__(self, faulty: FaultyMount, refusal: Response | None = None) -> None:
        registry = MemoryRegistry(users={})
        super().__init__(faulty, faulty.new_server(registry))
        user, password = faulty.log_in(server=self.server)
        registry.users = {user: password}
        self.storage = Storage(registry, refusal or Response(403))
        self.storage_server = faulty.other_server(self.storage)
        texts = [f"signature-{self.digest[7:17]}-{number}-" for number in range(30)]
        self._unused = iter([faulty.secret(text, self.storage_server) for text in texts])
        self.server.on("GET", "/blobs/", changed(self._redirect))

    def _redirect(self, right: Response) -> Response:
        if right.status not in (200, 206):
            return right
        digest, signature = dict(right.headers)["Docker-Content-Digest"], next(self._unused)
        self.storage.valid[digest] = signature
        return Response(307, (("Location", f"{self.storage_server.url}/{digest}?signature={signature}"),))


EXPIRED = {
    "403": Response(403, (), b"<Error><Code>AccessDenied</Code></Error>"),
    "400": Response(400, (), b"<Error><Code>ExpiredToken</Code></Error>"),
    "401": Response(401, (("WWW-Authenticate", 'Basic realm="storage"'),)),
    "404": Response(404),
    "410": Response(410),
}


def redirected(faulty: FaultyMount) -> dict[str, Redirected]:
    """Return an app for each way to refuse a signature; logins are one file, so that they are not made at once."""
    return {name: Redirected(faulty, refusal) for name, refusal in EXPIRED.items()}


def test_f55_a_signed_url_that_expires_in_mid_transfer_is_asked_for_again(faulty: FaultyMount) -> None:
    faulty.mount()

    def check(_name: str, app: Redirected) -> None:
        def cut_and_expire(connection: Connection) -> bool:
            response = connection.right()
            app.storage.valid[app.digest] = "none"
            connection.send(response.head() + response.body[:CUT])
            return False

        app.storage_server.on("GET", app.digest, cut_and_expire, times=1)
        assert faulty.reads(app.motd)
        ranges = app.storage_server.headers("range", app.digest)
        assert ranges == [None, *[f"bytes={CUT}-{len(app.content) - 1}"] * 2]
        assert app.blob.read_bytes() == app.content

    all_at_once(check, redirected(faulty))
    assert faulty.errors() == ""


def test_f57_a_blob_that_is_missing_is_an_error_for_its_bytes_and_its_name_stays(faulty: FaultyMount) -> None:
    app = App(faulty)
    blobs = app.server.application.repository("app").blobs  # type: ignore[attr-defined]
    content = blobs.pop(app.digest)
    assert sorted(os.listdir(app.path("blobs"))) == sorted(map(str, app.image.blobs()))
    assert app.blob.stat().st_size == len(content)
    app.is_refused()
    assert sorted(os.listdir(app.path("layers"))) == ["000", "001"]
    assert app.path("layers/0/digest").read_text() == f"{app.digest}\n"
    for name in ("motd", "etc/hosts"):
        assert faulty.fails(app.path(f"rootfs/{name}"), os.stat) == "EIO"
    assert faulty.fails(app.path(f"blobs/{Digest.of(b'other')}"), os.stat) == "ENOENT"
    blobs[app.digest] = content
    assert app.blob.read_bytes() == content


@by_both_drivers
def test_f58_an_empty_answer_is_no_empty_file(faulty: FaultyMount) -> None:
    app = App(faulty)
    app.on(reply(200, b"", {"Content-Type": "application/octet-stream"}))
    app.is_refused()
    assert app.blob.stat().st_size == len(app.content)
    app.server.heal()
    app.on(reply(200, b""), times=1)
    assert app.blob.read_bytes() == app.content


class Gate:
    """Sends the first bytes of a blob and the rest only once it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def __call__(self, connection: Connection) -> bool:
        response = connection.right()
        connection.send(response.head() + response.body[:CUT])
        self.reached.set()
        self._opened.wait(100)
        connection.send(response.body[CUT:])
        return True

    def open(self) -> None:
        self._opened.set()


def reader_of(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@by_both_drivers
@pytest.mark.parametrize(
    ("place", "end"), [("rootfs", signal.SIGKILL), ("blobs", signal.SIGINT)], ids=["SIGKILL", "SIGINT"]
)
def test_f59_a_reader_that_is_killed_in_mid_download_costs_the_other_nothing(
    faulty: FaultyMount, place: str, end: signal.Signals
) -> None:
    faulty.mount()
    app, gate = App(faulty), Gate()
    if faulty.driver == "fusepy":  # the kernel looks up one new name of a directory at a time for libfuse 2
        os.stat(app.path("layers"))
    app.on(gate)
    path, content = (app.motd, None) if place == "rootfs" else (app.blob, app.content)
    killed = reader_of(path)
    assert gate.reached.wait(100)
    other = reader_of(path)
    killed.send_signal(end)
    output, _ = killed.communicate(timeout=100)
    assert killed.returncode == -end
    assert output == b""
    assert faulty.neighbour_lives()
    assert app.rest_is_fine()
    gate.open()
    output, complaint = other.communicate(timeout=100)
    assert complaint == b""
    assert output == (content or app.motd.read_bytes())
    assert app.reads()
    assert faulty.errors() == ""


def test_f59_a_download_whose_readers_have_all_gone_ends_once_and_is_kept(faulty: FaultyMount) -> None:
    faulty.mount()
    app, gate = App(faulty), Gate()
    app.on(gate)
    readers = [reader_of(app.blob)]
    assert gate.reached.wait(100)
    readers += [reader_of(app.blob) for _ in range(3)]
    for reader in readers:
        reader.kill()
        reader.communicate(timeout=100)
    assert app.digest not in blobs_in(faulty.cache)
    gate.open()
    becomes(lambda: app.digest in blobs_in(faulty.cache), True)
    assert app.blob.read_bytes() == app.content
    assert app.requests() == 1
