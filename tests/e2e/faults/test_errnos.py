"""The errno that a program sees for each thing that a registry may answer, with each driver."""

from __future__ import annotations

import json
import os

from tests.e2e.faults.conftest import by_both_drivers
from tests.support.fault_server import Action, reply
from tests.support.faulty_mount import FaultyMount
from tests.support.images import file, image_of, layer
from tests.support.memory_registry import MANIFEST, MemoryRegistry, described
from tests.support.variants import all_at_once

ANSWERS: dict[str, tuple[Action, str]] = {
    "401 for ever": (reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'}), "EACCES"),
    "403": (reply(403), "EACCES"),
    "404": (reply(404), "ENOENT"),
    "429": (reply(429, headers={"Retry-After": "3600"}), "EBUSY"),
    "500": (reply(500), "EHOSTUNREACH"),
    "a web page": (reply(200, "<html>Please sign in</html>", {"Content-Type": "text/html"}), "EIO"),
    "a document over the limit": (reply(200, " " * 5_000_000, {"Content-Type": MANIFEST}), "EFBIG"),
}


@by_both_drivers
def test_what_a_registry_answers_decides_the_errno(faulty: FaultyMount) -> None:
    faulty.mount()

    def check(_name: str, expected: tuple[Action, str]) -> None:
        action, errno = expected
        server = faulty.new_server()
        faulty.push_app(server=server)
        server.on("*", "/manifests/", action)
        server.on("*", "/v2/app/tags/", action)
        assert faulty.fails(faulty.path("app/1/rootfs", server=server), os.listdir) == errno
        assert faulty.neighbour_lives()

    all_at_once(check, ANSWERS)


@by_both_drivers
def test_a_layer_of_a_format_that_is_not_known_is_unsupported(faulty: FaultyMount) -> None:
    built = faulty.push("app", "1", image_of(layer(file("motd"))))
    registry = faulty.registry
    assert isinstance(registry, MemoryRegistry)
    module = registry.add_blob("app", b"\0asm", media_type="application/vnd.wasm.content.layer.v1+wasm")
    manifest = json.loads(built.manifest)
    manifest["layers"] = [described(module), *manifest["layers"]]
    registry.add_manifest("app", json.dumps(manifest).encode(), tag="wasm", media_type=MANIFEST)
    assert faulty.fails(faulty.path("app/wasm/rootfs"), os.listdir) in ("EOPNOTSUPP", "ENOTSUP")
