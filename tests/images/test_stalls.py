"""Local work that stands still is ended, and the requests that wait for it get an answer: ETIMEDOUT."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import pytest

from regfs.errors import RegfsError, RegistryTimeout, WorkStalled
from regfs.images.workers import merge
from regfs.images.workers.ingest import ingest_layer
from regfs.images.workers.merge import SMALL_INDEXES, merge_layers
from regfs.mount.errnos import errno_of
from regfs.process.waiting.deadline import Deadline, under
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.layer_writer import LayerWriter
from tests.layers.ingested import Ingested, in_chunks, left_behind, named
from tests.support.fault_server import Connection
from tests.support.images import directory, file, image_of, layer, layer_of_tar, tar_of
from tests.support.processes import children
from tests.support.served import Served

BIG = layer_of_tar(tar_of(file("big", os.urandom(5_000_000))), compression="none")


@contextmanager
def stopping_each_new_process() -> Iterator[set[int]]:
    """Stop every process that this one starts, as a debugger, a frozen cgroup or a laptop's lid does."""
    before, stopped, is_over = children(), set[int](), threading.Event()

    def stop() -> None:
        while not is_over.wait(0.001):
            for process in children() - before - stopped:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGSTOP)
                    stopped.add(process)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield stopped
    finally:
        is_over.set()
        thread.join()


def test_a_stopped_process_that_ingests_a_layer_is_ended_and_leaves_nothing(tmp_path: Path) -> None:
    before = children()
    with stopping_each_new_process() as stopped, pytest.raises(WorkStalled, match="no progress"):
        ingest_layer(in_chunks(BIG.blob), **named(BIG), store=LayerStore(tmp_path), stall_s=0.3)
    assert stopped
    assert children() == before
    assert left_behind(tmp_path) == []


def test_a_process_that_stops_once_it_has_all_is_ended_too(tmp_path: Path) -> None:
    before = children()

    def chunks() -> Iterator[bytes]:
        yield BIG.blob
        # It has read all of it but what fills a pipe, and so has opened its files.
        for process in children() - before:
            os.kill(process, signal.SIGSTOP)

    with pytest.raises(WorkStalled):
        ingest_layer(chunks(), **named(BIG), store=LayerStore(tmp_path), stall_s=0.3)
    assert children() == before
    assert left_behind(tmp_path) == []


def test_a_process_that_waits_for_the_network_is_not_ended(tmp_path: Path) -> None:
    go = threading.Timer(0.5, lambda: None)

    def chunks() -> Iterator[bytes]:
        yield BIG.blob[:1000]
        go.start()
        go.join()
        yield BIG.blob[1000:]

    ingest_layer(chunks(), **named(BIG), store=LayerStore(tmp_path), stall_s=60.0)
    assert LayerStore(tmp_path).is_ingested(BIG.diff_id)


def test_a_merge_that_hangs_is_ended_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "LARGE_INDEXES", SMALL_INDEXES)  # by a worker, whatever ran before
    built = layer_of_tar(tar_of(*(directory(f"d{number:05}") for number in range(20_000))), compression="none")
    index = Ingested(tmp_path / "cache", built).index.path
    assert index.stat().st_size > SMALL_INDEXES
    before = children()
    with stopping_each_new_process() as stopped, pytest.raises(WorkStalled, match="no progress"):
        merge_layers([index], tmp_path / "images" / "x.merged", hidden={}, reserve=lambda _: None, stall_s=0.3)
    assert stopped
    assert children() == before
    assert list((tmp_path / "images").iterdir()) == []


def test_who_waits_for_a_stopped_process_gets_etimedout_and_the_next_request_starts_afresh(served: Served) -> None:
    served.push("app", "1", image_of(BIG))
    impatient = served.show(stall_s=0.3)
    with stopping_each_new_process(), under(Deadline(60.0)), pytest.raises(WorkStalled) as raised:
        impatient.names("app/1/rootfs")
    assert errno_of(raised.value) == errno.ETIMEDOUT
    assert str(BIG.digest) in str(raised.value)
    assert f"{served.server.address}/app" in str(raised.value)
    assert served.show().names("app/1/rootfs") == ["big"]


def test_a_request_does_not_wait_for_a_stopped_process_beyond_its_own_deadline(served: Served) -> None:
    served.push("app", "1", image_of(BIG))
    shown = served.show()
    deadline = under(Deadline(0.3))
    with (
        stopping_each_new_process() as stopped,
        deadline,
        pytest.raises(RegistryTimeout, match=r"no progress|no answer within"),
    ):
        shown.names("app/1/rootfs")
    for process in stopped:
        os.kill(process, signal.SIGCONT)
    assert shown.names("app/1/rootfs") == ["big"]


class HungDisk(LayerStore):
    """A store whose disk does not answer writers until *works* is set; none can end a thread that waits for it."""

    works: ClassVar[threading.Event]

    @contextmanager
    def begin_layer(self, size: int = 0) -> Iterator[LayerWriter]:
        assert self.works.wait(100)
        with super().begin_layer(size) as writer:
            yield writer


def test_a_disk_that_hangs_costs_each_request_its_deadline_and_only_some_threads(served: Served) -> None:
    HungDisk.works = threading.Event()
    images = 12
    for number in range(images):
        served.push("app", str(number), image_of(layer(file("a", b"%d" % number)), layer(file("b", b"%d" % number))))
    shown = served.show(stall_s=0.2, store=HungDisk)

    def flights() -> int:
        return sum(thread.name.startswith("flight ") for thread in threading.enumerate())

    before = flights()
    for number in range(images):
        with under(Deadline(0.1)), pytest.raises(RegfsError) as raised:
            shown.names(f"app/{number}/rootfs")
        assert errno_of(raised.value) == errno.ETIMEDOUT
    end_s = time.monotonic() + 60
    while flights() - before > 4:  # those that have a turn
        assert time.monotonic() < end_s
        time.sleep(0.01)
    HungDisk.works.set()
    assert shown.names("app/0/rootfs") == ["a", "b"]
    assert shown.names("app/11/rootfs") == ["a", "b"]


def test_content_that_trickles_is_progress(served: Served) -> None:
    small = layer(file("a", b"a"))
    served.push("app", "1", image_of(small))

    def trickle(connection: Connection) -> bool:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(small.blob))
        for at in range(0, len(small.blob), 40):
            connection.send(small.blob[at : at + 40])
            time.sleep(0.05)  # it is the registry that is slow
        return True

    served.server.on("GET", f"blobs/{small.digest}", trickle)
    assert served.show().names("app/1/rootfs") == ["a"]
