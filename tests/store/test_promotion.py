"""Big files that are used again get a file of their own, which the kernel can read by itself."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from regfs.store.layers.content import OpenContent, Span
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.promotion import BIG
from tests.support.caches import MIB, keep_layer
from tests.support.promotions import join_promotions

CONTENT = os.urandom(3 * MIB)


class Kept:
    """A store with one layer, which has one big file."""

    def __init__(self, root: Path) -> None:
        self.store = LayerStore(root)
        layer = keep_layer(self.store, "layer", files=[CONTENT])
        self.span = Span(layer, 1024, len(CONTENT))

    def open(self) -> OpenContent:
        return self.store.open_content(self.span)

    def is_promoted(self) -> bool:
        """Tell whether it is, once the thread that promotes has nothing more to do."""
        join_promotions()
        return self.store.promotion.path(self.span).exists()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def read_through(content: OpenContent) -> bytes:
    return b"".join(content.read_at(at, 100_000) for at in range(0, len(CONTENT), 100_000))


def test_a_file_that_is_read_on_is_promoted_and_the_next_open_has_a_file_of_its_own(kept: Kept) -> None:
    content = kept.open()
    assert content.backing_fd() is None
    assert read_through(content) == CONTENT
    assert kept.is_promoted()
    own = kept.open()
    fd = own.backing_fd()
    assert fd is not None
    assert os.pread(fd, len(CONTENT) + 1, 0) == CONTENT
    assert read_through(own) == read_through(content) == CONTENT


def test_a_file_that_is_opened_again_is_promoted(kept: Kept) -> None:
    assert kept.open().backing_fd() is None
    assert not kept.is_promoted()
    assert kept.open().backing_fd() is None
    assert kept.is_promoted()


def test_a_file_is_not_promoted_where_nothing_asked_for_a_file_of_its_own(kept: Kept) -> None:
    for _ in range(3):
        assert read_through(kept.open()) == CONTENT
    assert not kept.is_promoted()


def test_reading_here_and_there_promotes_nothing(kept: Kept) -> None:
    content = kept.open()
    content.backing_fd()
    for at in (2 * MIB, MIB, 5 * 100_000, 0):
        content.read_at(at, 4096)
    assert not kept.is_promoted()


def test_small_files_are_never_promoted(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer", files=[CONTENT[: BIG - 1]])
    for _ in range(3):
        content = store.open_content(Span(layer, 1024, BIG - 1))
        content.backing_fd()
        content.read_at(0, BIG)
    assert list(tmp_path.glob("objects/*/*/*")) == []


def test_a_copy_that_lost_its_end_is_not_used(kept: Kept) -> None:
    assert kept.store.promotion.promote(kept.span)
    os.truncate(kept.store.promotion.path(kept.span), MIB)
    assert read_through(kept.open()) == CONTENT
    assert not kept.store.promotion.path(kept.span).exists()


def test_copies_of_another_boot_are_removed_and_those_of_this_one_stay(tmp_path: Path) -> None:
    before = Kept(tmp_path)
    before.store.promotion.promote(before.span)
    LayerStore(tmp_path).recover()
    assert before.is_promoted()
    LayerStore(tmp_path, boot="another").recover()
    assert not before.is_promoted()
    assert read_through(before.open()) == CONTENT


def test_a_layer_that_is_dropped_takes_its_copies_along(kept: Kept) -> None:
    kept.store.promotion.promote(kept.span)
    kept.store.drop(kept.span.layer)
    assert not kept.is_promoted()


def test_a_data_file_that_is_cut_off_leaves_no_copy(kept: Kept) -> None:
    content = kept.open()
    content.backing_fd()
    os.truncate(kept.store.data_path(kept.span.layer), 2 * MIB)
    content.read_at(0, MIB + 1)
    assert not kept.is_promoted()
    assert list(kept.store.root.glob("objects/*/*/*")) == []


def test_many_files_are_promoted_by_one_thread(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer", files=[CONTENT] * 8)
    spans = [Span(layer, 1024 + number * len(CONTENT), len(CONTENT)) for number in range(8)]
    for span in spans:
        store.promotion.read_on(span)
        assert sum(thread.name == "regfs-promotion" for thread in threading.enumerate()) <= 1
    join_promotions()
    assert all(store.promotion.path(span).exists() for span in spans)
