"""A big layer is ingested by a process of its own: same result, same errors, nothing left when it is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from regfs.errors import BadLayer, CacheFailure, DigestMismatch, RegistryUnavailable
from regfs.images.workers.ingest import SMALL_LAYER, Progress, ingest_layer
from regfs.model.digest import Digest
from regfs.model.verification import verified
from regfs.store.layers.layer_store import LayerStore
from tests.layers.ingested import Ingested, ignore, in_chunks, left_behind, named
from tests.support.images import BuiltLayer, directory, file, layer_of_tar, tar_of
from tests.support.processes import children

CONTENTS = {f"d/file{number}": os.urandom(number * 997) for number in range(40)} | {"big": os.urandom(3_000_000)}
BUILT = layer_of_tar(tar_of(directory("d"), *(file(name, content) for name, content in CONTENTS.items())))


def test_a_big_layer_is_ingested_by_a_process_of_its_own(tmp_path: Path) -> None:
    before, seen, progress = children(), set(), Progress()

    def report(_: Progress) -> None:
        seen.update(children() - before)

    assert len(BUILT.blob) > SMALL_LAYER
    store = LayerStore(tmp_path / "process")
    ingest_layer(in_chunks(BUILT.blob), **named(BUILT), store=store, progress=progress, report=report)
    assert len(seen) == 1
    assert children() - before == set()
    assert (progress.received, progress.inflated, progress.entries) == (len(BUILT.blob), len(BUILT.tar), 42)
    here = Ingested(tmp_path / "here", BUILT)
    assert list(store.open_index(BUILT.diff_id).by_directory()) == list(here.index.by_directory())
    assert files_of(tmp_path / "here") == files_of(tmp_path / "process") != []


def files_of(root: Path) -> list[str]:
    return [name for name in left_behind(root) if name.startswith(("layers/", "objects/", "ingests/"))]


@pytest.mark.parametrize("niceness", [0, 7])
def test_the_process_is_as_nice_as_it_shall_be(tmp_path: Path, niceness: int) -> None:
    own, before, seen = os.getpriority(os.PRIO_PROCESS, 0), children(), set()

    def chunks() -> Iterator[bytes]:
        (process,) = children() - before
        end = time.monotonic() + 60
        while os.getpriority(os.PRIO_PROCESS, process) != own + niceness:
            assert time.monotonic() < end, "it has not changed its niceness"
            time.sleep(0.01)
        seen.add(process)
        yield BUILT.blob

    ingest_layer(chunks(), **named(BUILT), store=LayerStore(tmp_path), niceness=niceness)
    assert len(seen) == 1
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_a_small_layer_is_ingested_without_one(tmp_path: Path) -> None:
    built = layer_of_tar(tar_of(file("a", b"b")))
    before = children()
    ingest_layer(
        in_chunks(built.blob),
        **named(built),
        store=LayerStore(tmp_path),
        report=lambda _: pytest.fail("a process") if children() - before else None,
    )
    assert LayerStore(tmp_path).is_ingested(built.diff_id)


@pytest.mark.parametrize("changed", [{"diff_id": Digest.of(b"x")}, {"size": 10_000_000}])
def test_the_processs_verdict_is_raised(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(DigestMismatch, match=str(BUILT.digest)):
        ingest_layer(in_chunks(BUILT.blob), **named(BUILT, **changed), store=LayerStore(tmp_path))  # type: ignore[arg-type]
    assert left_behind(tmp_path) == []


def test_wrong_bytes_end_the_process_and_leave_nothing(tmp_path: Path) -> None:
    before, wrong = children(), verified(in_chunks(BUILT.blob), Digest.of(b"x"), len(BUILT.blob))
    with pytest.raises(DigestMismatch, match="the bytes that came"):
        ingest_layer(wrong, **named(BUILT), store=LayerStore(tmp_path))
    assert children() == before
    assert left_behind(tmp_path) == []


def test_a_broken_layer_is_told_by_the_process(tmp_path: Path) -> None:
    tar = BUILT.tar[: len(BUILT.tar) // 2] + os.urandom(2_000_000)
    built = layer_of_tar(tar)
    with pytest.raises(BadLayer):
        ingest_layer(in_chunks(built.blob), **named(built), store=LayerStore(tmp_path))
    assert left_behind(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_told_by_the_process(tmp_path: Path) -> None:
    (tmp_path / "ingests").write_text("in the way")
    with pytest.raises(CacheFailure):
        ingest_layer(in_chunks(BUILT.blob), **named(BUILT), store=LayerStore(tmp_path))


def test_an_error_of_the_source_ends_the_process(tmp_path: Path) -> None:
    before = children()

    def failing() -> Iterator[bytes]:
        yield BUILT.blob[: 1 << 20]
        raise RegistryUnavailable("connection reset")

    with pytest.raises(RegistryUnavailable):
        ingest_layer(failing(), **named(BUILT), store=LayerStore(tmp_path))
    assert children() - before == set()
    assert left_behind(tmp_path) == []


def test_nothing_is_visible_when_the_process_is_killed(tmp_path: Path) -> None:
    before = children()

    def chunks() -> Iterator[bytes]:
        for number, chunk in enumerate(in_chunks(BUILT.blob)):
            if number == 30:
                for pid in children() - before:
                    os.kill(pid, signal.SIGKILL)
            yield chunk

    with pytest.raises(CacheFailure, match="killed"):
        ingest_layer(chunks(), **named(BUILT), store=LayerStore(tmp_path))
    assert children() - before == set()
    assert left_behind(tmp_path) == []


def test_the_process_sees_no_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", "hunter2")
    before, environments = children(), []

    def report(_: Progress) -> None:
        for pid in children() - before:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                environments.append(Path(f"/proc/{pid}/environ").read_bytes())

    ingest_layer(in_chunks(BUILT.blob), **named(BUILT), store=LayerStore(tmp_path), report=report)
    assert environments
    # Until it has executed its program a child has our environment, as we have.
    assert b"hunter2" not in environments[-1]


def test_an_uncompressed_layer_of_zeros_goes_through(tmp_path: Path) -> None:
    tar = tar_of(file("zeros", bytes(20_000_000)))
    built = BuiltLayer(tar, tar, "application/vnd.oci.image.layer.v1.tar")
    ingest_layer(in_chunks(tar), **named(built), store=LayerStore(tmp_path), report=ignore)
    assert LayerStore(tmp_path).is_ingested(built.diff_id)
