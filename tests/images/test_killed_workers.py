"""A worker that the kernel kills, as it does where memory runs out, costs one more attempt and no error."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from regfs.errors import WorkerKilled
from regfs.images.workers import merge
from regfs.images.workers.merge import SMALL_INDEXES
from tests.support.images import directory, file, image_of, layer_of_tar, tar_of
from tests.support.processes import children
from tests.support.served import Served


@contextmanager
def killing(most: int) -> Iterator[list[int]]:
    """Kill the first *most* processes that this one starts."""
    before, killed, is_over = children(), list[int](), threading.Event()

    def kill() -> None:
        while not is_over.wait(0.001):
            for process in children() - before - set(killed):
                if len(killed) < most:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                        killed.append(process)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


def test_a_layer_whose_worker_is_killed_once_is_fetched_again(served: Served) -> None:
    big = layer_of_tar(tar_of(file("big", os.urandom(5_000_000))), compression="none")
    served.push("app", "1", image_of(big))
    shown = served.show()
    with killing(1) as killed:
        assert shown.names("app/1/rootfs") == ["big"]
    assert len(killed) == 1
    assert f"{big.digest}: its worker was killed (signal 9); it is done once more" in shown.journal.text()


def test_a_merge_whose_worker_is_killed_once_is_done_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "LARGE_INDEXES", SMALL_INDEXES)  # by a worker, whatever ran before
    many = layer_of_tar(tar_of(*(directory(f"d{number:05}") for number in range(20_000))), compression="none")
    served.push("app", "1", image_of(many))
    shown = served.show()
    shown.names("app/1/layers/000/tree")
    assert shown.contents._store.index_path(many.diff_id).stat().st_size > SMALL_INDEXES
    with killing(1) as killed:
        assert len(shown.names("app/1/rootfs")) == 20_000
    assert len(killed) == 1
    assert "merging" in shown.journal.text()
    assert "it is done once more" in shown.journal.text()


def test_a_worker_that_is_killed_twice_is_an_error_of_the_cache(served: Served) -> None:
    big = layer_of_tar(tar_of(file("big", os.urandom(5_000_000))), compression="none")
    served.push("app", "1", image_of(big))
    shown = served.show()
    with killing(2) as killed, pytest.raises(WorkerKilled, match="signal 9"):
        shown.names("app/1/rootfs")
    assert len(killed) == 2
    assert shown.names("app/1/rootfs") == ["big"]
