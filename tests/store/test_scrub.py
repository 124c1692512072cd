"""Looking for rot in the background: each file once in a while, the oldest check first."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from regfs.model.digest import Digest
from regfs.store.layers.layer_store import LayerStore
from regfs.store.scrub import Scrub
from regfs.store.verify import Problem
from tests.support.caches import keep_layer

ENDED = threading.Event()


class Seen:
    def __init__(self, root: Path, age_s: float = 3600.0) -> None:
        self.sizes: list[int] = []
        self.problems: list[Problem] = []
        self.scrub = Scrub(root, age_s=age_s, checked=self.sizes.append, found=self.problems.append)


@pytest.fixture
def layers(tmp_path: Path) -> list[Digest]:
    store = LayerStore(tmp_path)
    return [keep_layer(store, f"layer {number}", files=[bytes([number]) * 5000]) for number in range(3)]


def rot(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_rot_is_found_dropped_and_told_and_the_rest_is_checked_once(tmp_path: Path, layers: list[Digest]) -> None:
    store, seen = LayerStore(tmp_path), Seen(tmp_path)
    rot(store.data_path(layers[1]), 2000)
    seen.scrub.check_due(ENDED)
    assert [problem.path for problem in seen.problems] == [store.index_path(layers[1])]
    assert "damaged" in seen.problems[0].reason
    assert [store.is_whole(layer) for layer in layers] == [True, False, True]
    assert len(seen.sizes) == 3
    seen.scrub.check_due(ENDED)
    assert len(seen.sizes) == 3  # none is due again


def test_another_daemon_does_not_check_again_what_was_just_checked(tmp_path: Path, layers: list[Digest]) -> None:
    try:
        os.setxattr(LayerStore(tmp_path).index_path(layers[0]), "user.regfs.checked", b"0")
    except OSError:
        pytest.skip("the disk of the tests has no extended attributes")
    Seen(tmp_path).scrub.check_due(ENDED)
    other = Seen(tmp_path)
    other.scrub.check_due(ENDED)
    assert other.sizes == []


def test_a_file_is_due_again_when_its_check_is_too_old_or_in_the_future(tmp_path: Path, layers: list[Digest]) -> None:
    store, seen = LayerStore(tmp_path), Seen(tmp_path)
    seen.scrub.check_due(ENDED)
    for layer, age_s in ((layers[0], 4000), (layers[1], -(10**6)), (layers[2], 1000)):
        try:
            checked = str(int(time.time() - age_s)).encode()
            os.setxattr(store.index_path(layer), "user.regfs.checked", checked)
        except OSError:
            pytest.skip("the disk of the tests has no extended attributes")
    again = Seen(tmp_path)
    again.scrub.check_due(ENDED)
    assert len(again.sizes) == 2


def test_a_layer_that_is_evicted_meanwhile_is_no_problem(tmp_path: Path, layers: list[Digest]) -> None:
    store, seen = LayerStore(tmp_path), Seen(tmp_path)
    store.data_path(layers[0]).unlink()
    store.drop(layers[1])
    seen.scrub.check_due(ENDED)
    assert seen.problems == []


def test_it_ends_when_it_is_told(tmp_path: Path, layers: list[Digest]) -> None:
    ended, seen = threading.Event(), Seen(tmp_path, age_s=0.0)
    ended.set()
    thread = threading.Thread(target=seen.scrub.run, args=(ended,))  # the thread is idle from then on
    thread.start()
    thread.join()
    assert seen.sizes == []
