"""Manifests with wrong bytes, digests and headers, seen by the user of a mount: F31, F32, F34 and F36 of the catalogue.

The variants of a fault run at once, each with a registry of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from regfs.model.digest import Digest
from tests.support.cache import blobs_in
from tests.support.fault_server import Action, FaultServer, Response, changed, reply
from tests.support.faulty_mount import FaultyMount
from tests.support.hello import host_architecture
from tests.support.images import file, image_of, index_of, layer
from tests.support.memory_registry import INDEX, MANIFEST, MemoryRegistry
from tests.support.variants import all_at_once

# What tags have by default: none moves here.
PATIENT = ("--tag-ttl", "60s")
NOWHERE = "sha256:" + "0" * 64


class App:
    """app:1 in a registry of its own."""

    def __init__(self, faulty: FaultyMount) -> None:
        self.faulty = faulty
        self.server = faulty.new_server()
        self.image = faulty.push_app(server=self.server)
        self.digest = str(self.image.digest)
        self.manifest = self.path("1/manifest.json")
        self.rootfs = self.path("1/rootfs")
        self.motd = self.path("1/rootfs/motd")

    def path(self, name: str) -> Path:
        return self.faulty.path(f"app/{name}", server=self.server)

    def fails(self, path: Path, do: Callable[[Path], object]) -> str:
        """Return the errno that *do* fails with, after which `.regfs/errors` must name the registry and the app."""
        errno = self.faulty.fails(path, do)
        assert f"{self.server.address}/app" in self.faulty.errors()
        return errno

    def is_right(self) -> bool:
        """Tell whether manifest, digest and files are those that were pushed."""
        assert os.stat(self.manifest).st_size == len(self.image.manifest)
        assert self.manifest.read_bytes() == self.image.manifest
        assert self.path("1/digest").read_text() == f"{self.digest}\n"
        return self.faulty.reads(self.motd)

    def is_cached(self) -> bool:
        """Tell whether the cache has the manifest."""
        return self.digest in blobs_in(self.faulty.cache)

    def documents(self, reference: str) -> list[str]:
        """Return the methods of the requests for that manifest."""
        return [path.split()[0] for path in self.server.paths(f"/app/manifests/{reference}$")]


def flip(right: Response) -> Response:
    """Return *right* with one bit changed in its body."""
    return Response(right.status, right.headers, right.body[:20] + bytes([right.body[20] ^ 1]) + right.body[21:])


def test_f31_a_manifest_with_other_bytes_is_an_error_and_not_one_of_them_is_kept(faulty: FaultyMount) -> None:
    app = App(faulty)
    app.server.on("GET", f"app/manifests/{app.digest}", changed(flip))
    wrong = str(Digest.of(flip(Response(body=app.image.manifest)).body))
    assert app.fails(app.manifest, Path.read_bytes) == "EIO"
    assert app.documents(app.digest) == ["GET", "GET"]
    assert app.fails(app.rootfs, os.listdir) == "EIO"
    assert app.fails(app.path(app.digest), os.listdir) == "EIO"
    assert {app.digest, wrong}.isdisjoint(blobs_in(faulty.cache))
    assert app.digest in faulty.errors()
    assert wrong in faulty.errors()
    assert faulty.neighbour_lives()
    app.server.heal()
    assert app.is_right()


def test_f31_a_wrong_manifest_of_an_index_leaves_the_index_and_its_other_images(faulty: FaultyMount) -> None:
    app = App(faulty)
    other = faulty.push("app", "other", image_of(layer(file("other")), architecture="mips"), server=app.server)
    platforms = [{"os": "linux", "architecture": name} for name in (host_architecture(), "mips")]
    index = index_of(app.image.descriptor(platform=platforms[0]), other.descriptor(platform=platforms[1]))
    put(app.server, "index", index, INDEX)
    app.server.on("GET", f"app/manifests/{app.digest}", changed(flip))
    assert app.fails(app.path("index/rootfs"), os.listdir) == "EIO"
    assert app.fails(app.path("index/manifest.json"), Path.read_bytes) == "EIO"
    assert app.path("index/index.json").read_bytes() == index
    assert os.listdir(app.path("index/manifests/linux-mips/rootfs")) == ["other"]
    assert not app.is_cached()
    app.server.heal()
    assert app.path("index/manifest.json").read_bytes() == app.image.manifest


def put(server: FaultServer, tag: str, content: bytes, media_type: str = MANIFEST) -> str:
    """Put any document into the registry as app:*tag*, and return its digest."""
    registry = server.application
    assert isinstance(registry, MemoryRegistry)
    return str(registry.add_manifest("app", content, tag=tag, media_type=media_type))


def saying(digest: str) -> Action:
    """Answer what is right, with that Docker-Content-Digest."""
    return changed(lambda right: right.with_header("Docker-Content-Digest", digest))


SAID = {
    "another": NOWHERE,
    "too short": "sha256:short",
    "a path": "sha256:../../etc/passwd",
}


def test_f32_a_head_that_names_what_does_not_exist_does_not_make_the_tag_a_missing_one(faulty: FaultyMount) -> None:
    faulty.mount(*PATIENT)

    def check(_name: str, said: str) -> None:
        app = App(faulty)
        app.server.on("*", "app/manifests/1", saying(said))
        assert app.manifest.read_bytes() == app.image.manifest
        assert faulty.reads(app.motd)
        assert app.server.paths("passwd|short") == []
        assert {said}.isdisjoint(blobs_in(faulty.cache))

    all_at_once(check, SAID)
    assert faulty.errors() == ""


def test_f34_a_head_that_fails_does_not_hide_a_tag(faulty: FaultyMount) -> None:
    faulty.mount(*PATIENT)

    def check(_name: str, status: int) -> None:
        app = App(faulty)
        app.server.on("HEAD", "/manifests/", reply(status))
        # That HEAD and GET agree about this one must not make HEAD right about the next.
        assert faulty.fails(app.path("none"), os.stat) == "ENOENT"
        assert app.is_right()
        assert app.documents("1").count("HEAD") == 1, "a registry whose HEAD is wrong was asked so again"
        assert faulty.fails(app.path("no-such-tag"), os.stat) == "ENOENT"
        app.server.heal()
        assert app.is_right()

    all_at_once(check, {str(status): status for status in (401, 404, 500)})
    assert faulty.errors() == ""


BOMBS = {
    "lists in lists": (b"[" * 4_000_000, "EIO"),
    "objects in objects": (b'{"schemaVersion":2,"config":' + b'{"a":' * 500_000, "EIO"),
    "a million layers": (b'{"schemaVersion":2,"config":{},"layers":[' + b"{}," * 999_999 + b"{}]}", "EFBIG"),
    "very many annotations": (
        b'{"schemaVersion":2,"annotations":{' + b",".join(b'"%x":1' % number for number in range(350_000)) + b"}}",
        "EIO",
    ),
    "a long number": (b'{"schemaVersion":2,"size":' + b"9" * 4_000_000 + b"}", "EIO"),
}


def test_f36_a_document_that_is_made_to_harm_is_an_error_and_its_bytes_are_there(faulty: FaultyMount) -> None:
    faulty.mount(*PATIENT)

    def check(name: str, bomb: tuple[bytes, str]) -> None:
        document, errno = bomb
        app = App(faulty)
        put(app.server, "bomb", document)
        assert faulty.fails(app.path("bomb/rootfs"), os.listdir) == errno
        assert app.path("bomb/manifest.json").read_bytes() == document
        assert sorted(os.listdir(app.path("bomb"))) == ["digest", "manifest.json"]
        assert str(Digest.of(document)) in faulty.errors()
        assert app.is_right()

    all_at_once(check, BOMBS)


def test_f36_a_manifest_over_the_limit_is_too_large_and_not_asked_for(faulty: FaultyMount) -> None:
    app = App(faulty)
    digest = put(app.server, "big", json.dumps({"schemaVersion": 2, "padding": " " * 5_000_000}).encode())
    assert app.fails(app.path("big/manifest.json"), Path.read_bytes) == "EFBIG"
    assert set(app.documents("big")) == {"HEAD"}
    assert app.fails(app.path(f"{digest}/manifest.json"), Path.read_bytes) == "EFBIG"
    assert digest not in blobs_in(faulty.cache)
    assert app.is_right()
