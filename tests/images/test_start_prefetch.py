"""As an image's program is opened, what its start reads is fetched ahead, and nothing else."""

from __future__ import annotations

import json
import os

import pytest

from regfs.errors import Offline
from regfs.images.starts.start_prefetch import MAX_REPLAYED
from regfs.model.digest import Digest
from regfs.model.names import RepositoryName
from regfs.model.start_record import START_TYPE, Read, StartRecord, render_start_record
from tests.images.test_lazy_layers import join_threads
from tests.support.elf import elf
from tests.support.fault_server import Action, reply
from tests.support.images import directory, file, image_of
from tests.support.lazy_layers import estargz
from tests.support.memory_registry import MANIFEST
from tests.support.served import Served
from tests.support.shown import Shown

# Far from each other in the blob, so that no range brings two of them.
NOISE = [file(f"noise{number}", os.urandom(200_000)) for number in range(4)]
LIBRARY, DEEP = elf(needed=[b"libdeep.so"]), elf()
LAYER = estargz(
    directory("bin"),
    file("bin/server", elf(interpreter=b"/lib/ld.so", needed=[b"liba.so"])),
    NOISE[0],
    directory("lib"),
    file("lib/ld.so", elf()),
    NOISE[1],
    file("lib/liba.so", LIBRARY),
    NOISE[2],
    file("lib/libdeep.so", DEEP),
    NOISE[3],
    file("other", b"another file"),
)


@pytest.fixture
def shown(served: Served) -> Shown:
    served.push("app", "1", image_of(LAYER, command=["server"]))
    return served.show(rest_from=1.0)


def is_here(served: Served, path: str) -> bool:
    try:
        served.show(offline=True).read(f"app/1/rootfs/{path}")
    except Offline:
        return False
    return True


def test_a_program_that_is_opened_brings_what_it_is_linked_with(served: Served, shown: Shown) -> None:
    shown.tree.open(shown.find("app/1/rootfs/bin/server").node).close()
    join_threads("flight ('start'")
    join_threads("flight ('program'")  # which the first has begun
    assert [is_here(served, path) for path in ("bin/server", "lib/ld.so", "lib/liba.so", "lib/libdeep.so")] == [
        True
    ] * 4
    assert not is_here(served, "noise0")
    requests = len(served.server.paths("/blobs/"))
    assert shown.read("app/1/rootfs/lib/liba.so") == LIBRARY
    assert shown.read("app/1/rootfs/lib/libdeep.so") == DEEP
    assert len(served.server.paths("/blobs/")) == requests


def test_another_file_brings_itself_and_the_program_later_its_own(served: Served, shown: Shown) -> None:
    assert shown.read("app/1/rootfs/other") == b"another file"
    join_threads("flight ('start'")
    assert not is_here(served, "lib/liba.so")
    shown.tree.open(shown.find("app/1/rootfs/bin/server").node).close()
    join_threads("flight ('program'")
    assert is_here(served, "lib/libdeep.so")
    assert shown.stats.value("starts.programs") == 1


def test_a_library_that_is_loaded_while_a_program_runs_brings_what_it_is_linked_with(
    served: Served, shown: Shown
) -> None:
    """`import numpy` loads a module that is linked with three libraries, and waited for one after the other."""
    assert shown.read("app/1/rootfs/lib/liba.so") == LIBRARY
    join_threads("flight ('libraries'")
    assert is_here(served, "lib/libdeep.so")
    assert not is_here(served, "bin/server")


def test_listing_an_image_fetches_nothing_of_its_program(served: Served, shown: Shown) -> None:
    assert "bin" in shown.names("app/1/rootfs")
    assert shown.stats.value("chunks.requests") == 0
    assert shown.stats.value("starts.programs") == 0


def kept(shown: Shown, *reads: Read, files: tuple[str, ...] = ("lib/liba.so", "noise0", "../../noise1")) -> None:
    """Keep a record of the image's start in the cache."""
    repository = shown.repositories.repository(RepositoryName(shown.app.config.default_registry, "app"))
    image = shown.images.image(repository, repository.tags.resolve("1").digest)
    repository.starts.keep(image.manifest_descriptor.digest, StartRecord(files, reads))


def test_the_first_file_that_is_opened_brings_what_the_last_start_read(served: Served, shown: Shown) -> None:
    kept(shown, Read(0, 0, 100), Read(1, 0, 4096))
    assert shown.read("app/1/rootfs/other") == b"another file"
    join_threads("flight ('start'")
    assert is_here(served, "lib/liba.so")
    assert is_here(served, "noise0")
    assert not is_here(served, "noise2")
    # the record is the cache's own: no registry was asked for one
    assert served.server.paths("/referrers/") == []


def test_a_hostile_record_costs_bytes_of_the_image_alone(served: Served, shown: Shown) -> None:
    files = ("nowhere", "bin", "../../etc/passwd", "/noise0", "lib/" * 900, "noise3")
    reads = [Read(number % 6, offset, 1 << 60) for number in range(600) for offset in (0, 1 << 50)]
    kept(shown, *reads, files=files)
    assert shown.read("app/1/rootfs/other") == b"another file"
    join_threads("flight ('start'")
    assert is_here(served, "noise3")
    assert not is_here(served, "noise1")
    assert shown.stats.value("starts.replayed_bytes") <= MAX_REPLAYED
    assert shown.read("app/1/rootfs/lib/libdeep.so") == DEEP


@pytest.mark.parametrize("answer", [reply(500), reply(200, "[]"), reply(200, "<html>")])
def test_a_registry_that_lists_no_referrers_costs_no_file(served: Served, shown: Shown, answer: Action) -> None:
    served.server.on("GET", "/referrers/", answer)
    assert shown.read("app/1/rootfs/other") == b"another file"
    join_threads("flight ('start'")
    assert shown.read("app/1/rootfs/noise1") == NOISE[1].content


def refer(served: Served, created: str, *reads: Read, subject: str = "") -> None:
    """Put a record that refers to the image, or to *subject*, into the registry, and let its API list it."""
    manifest = served.registry.repositories["app"].tags["1"]
    content = render_start_record(StartRecord(("lib/liba.so", "noise0"), reads))
    blob = served.registry.add_blob("app", content, media_type=START_TYPE)
    described = {"mediaType": START_TYPE, "digest": str(blob.digest), "size": len(content)}
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": START_TYPE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2},
        "layers": [described],
        "subject": {"mediaType": MANIFEST, "digest": subject or manifest, "size": 1},
    }
    artifact = json.dumps(document).encode()
    digest = served.registry.add_manifest("app", artifact)
    entry = {"mediaType": MANIFEST, "digest": str(digest), "size": len(artifact), "artifactType": START_TYPE}
    annotations = {"org.opencontainers.image.created": created}
    served.registry.repository("app").referrers.setdefault(manifest, []).append(entry | {"annotations": annotations})


def test_the_newest_record_that_refers_to_the_image_is_replayed(served: Served, shown: Shown) -> None:
    refer(served, "2026-01-01T00:00:00Z", Read(1, 0, 4096))
    refer(served, "2026-02-01T00:00:00Z", Read(0, 0, 100))
    refer(served, "2026-03-01T00:00:00Z", Read(1, 0, 4096), subject=str(Digest.of(b"another image")))
    assert shown.read("app/1/rootfs/other") == b"another file"
    join_threads("flight ('start'")
    assert is_here(served, "lib/liba.so")
    assert not is_here(served, "noise0")
    assert len(served.server.paths("/referrers/")) == 1
