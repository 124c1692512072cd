"""Verbs whose cache has no room for the image: those that can answer do, the others name what they need."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.artifacts import TITLE, artifact_of, blob, push_artifact
from tests.support.caches import tmpfs
from tests.support.fault_server import FaultServer
from tests.support.hello import MESSAGE, hello_program, host_architecture
from tests.support.image_mounts import Machine, registry_of
from tests.support.images import file, image_of, layer
from tests.support.mounted import mounts_at
from tests.support.read_only import needs_root

BIG = os.urandom(5 << 20)
FILES = {"d/big": BIG, "d/last": b"last", "sparse": bytes(70_000) + b"end"}
SPARSE = {"GNU.sparse.map": b"70000,3", "GNU.sparse.size": b"70003"}
pytestmark = needs_root


@pytest.fixture
def machine(tmp_path: Path, needs_fuse: None) -> Iterator[Machine]:
    """A machine whose cache is on a disk of 2 MB, and a registry with an image and an artifact of 5 MB."""
    image = image_of(
        layer(
            file("hello", hello_program(), mode=0o755), file("d/big", BIG), file("d/last", b"last"),
            file("sparse", b"end", pax=SPARSE),
        ),
        architecture=host_architecture(), command=["/hello"],
    )  # fmt: skip
    registry = registry_of(image)
    artifact = artifact_of(blob(BIG, "application/octet-stream", {TITLE: "model"}), kind="application/vnd.example")
    push_artifact(registry, "demo/model", "1", artifact)
    with FaultServer(registry) as server, tmpfs(tmp_path / "cache", "size=2m,mode=755"):
        made = Machine(server, tmp_path)
        yield made
        if mounts_at(made.point):
            made.umount()


def done_by(machine: Machine, verb: str, *words: str | Path) -> str:
    """Return what the verb prints. It says why nothing is kept, once."""
    done = machine.regfs(verb, "--cache-dir", machine.cache, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is not kept") == 1, done.stderr
    return done.stdout


def test_unpack_cp_get_and_export_write_what_the_cache_cannot_take(machine: Machine) -> None:
    out = machine.directory
    done_by(machine, "unpack", machine.image, out / "unpacked")
    assert {name: (out / "unpacked" / name).read_bytes() for name in FILES} == FILES
    done_by(machine, "unpack", f"{machine.image}:/d", out / "part")
    assert (out / "part" / "big").read_bytes() == BIG
    done_by(machine, "cp", f"{machine.image}:/d", out / "copied")
    assert {path.name: path.read_bytes() for path in (out / "copied").iterdir()} == {"big": BIG, "last": b"last"}
    done_by(machine, "get", machine.image.replace("/app:", "/model:"), out / "got")
    assert (out / "got" / "model").read_bytes() == BIG
    assert machine.regfs("export", "--cache-dir", machine.cache, "-o", out / "a.tar", machine.image).returncode == 0
    assert len(subprocess.run(["tar", "-tf", out / "a.tar"], capture_output=True, check=True).stdout.split()) >= 5


def test_a_program_runs_from_an_image_that_the_cache_cannot_take(machine: Machine) -> None:
    assert done_by(machine, "run", machine.image).encode() == MESSAGE


def test_an_image_that_the_cache_cannot_take_is_mounted_by_fuse_and_else_what_it_needs_is_told(
    machine: Machine,
) -> None:
    refused = machine.mount("--writable")
    assert refused.returncode != 0
    assert "needs 5.0 MiB; the disk of" in refused.stderr
    assert "--cache-dir" in refused.stderr
    done = machine.mount()
    assert done.returncode == 0, done.stderr
    assert "mounted by FUSE instead" in done.stderr
    assert {name: (machine.point / name).read_bytes() for name in FILES} == FILES


def test_prefetch_of_what_the_cache_cannot_take_tells_the_image_and_what_it_needs(machine: Machine) -> None:
    done = machine.regfs("prefetch", "--cache-dir", machine.cache, machine.image)
    assert done.returncode != 0
    assert f"{machine.image.removesuffix(':1')}@sha256:" in done.stderr
    assert "needs 5.0 MiB; the disk of" in done.stderr
