"""Images of which the cache has the names and no longer the bytes; and a cache that can only be read."""

from __future__ import annotations

import os

import pytest

from regfs.errors import Offline
from regfs.model.names import RepositoryName
from regfs.store.eviction.inventory import used_by
from regfs.store.verify import verify
from tests.support.images import directory, file, image_of, layer
from tests.support.lazy_layers import estargz
from tests.support.read_only import needs_root, read_only
from tests.support.served import Served
from tests.support.shown import Shown

BIG = bytes(range(256)) * 8192
ENTRIES = (directory("d"), file("d/big", BIG), file("small", b"small"))


@pytest.fixture(params=["evicted", "deleted by hand"])
def named(request: pytest.FixtureRequest, served: Served) -> Served:
    """A cache that has lost the bytes of an image, all of which it had."""
    served.push("app", "1", image_of(layer(*ENTRIES)))
    with served.show() as shown:
        complete(shown)
        assert shown.read("app/1/rootfs/d/big") == BIG
    if request.param == "evicted":
        with served.show() as shown:
            shown.app.layers.budget.trim(1 << 20)
    else:
        for path in served.cache.glob("layers/*.tar"):
            path.unlink()
    assert not list(served.cache.glob("layers/*.tar"))
    assert [str(problem) for problem in verify(served.cache, drop=False)] == []
    return served


def complete(shown: Shown) -> None:
    repository = shown.repositories.repository(RepositoryName(shown.app.config.default_registry, "app"))
    image = shown.images.image(repository, repository.tags.resolve("1").digest)
    image.rootfs()
    image.complete()


def test_names_are_shown_without_the_network_and_bytes_are_fetched_again(named: Served) -> None:
    offline = named.show(offline=True)
    assert offline.names("app/1/rootfs") == ["d", "small"]
    assert offline.attributes("app/1/rootfs/d/big").size == len(BIG)
    assert offline.names("app/1/layers/000/tree/d") == ["big"]
    with pytest.raises(Offline):
        offline.read("app/1/rootfs/small")
    shown = named.show()
    assert shown.read("app/1/rootfs/small") == b"small"
    assert shown.read("app/1/rootfs/d/big") == BIG


def test_what_is_to_be_here_whole_is_fetched_again(named: Served) -> None:
    shown = named.show()
    complete(shown)
    offline = named.show(offline=True)
    assert offline.read("app/1/rootfs/d/big") == BIG
    assert offline.read("app/1/rootfs/small") == b"small"


@pytest.mark.parametrize("suffix", ["chunks", "tar"])
def test_a_lazy_layer_that_lost_one_of_its_files_is_made_again(served: Served, suffix: str) -> None:
    served.push("app", "1", image_of(estargz(*ENTRIES)))
    with served.show() as shown:
        complete(shown)
    (path,) = served.cache.glob(f"layers/*.{suffix}")
    path.unlink()
    assert served.show().read("app/1/rootfs/d/big") == BIG


@pytest.mark.parametrize("change", ["of another release", "torn"])
def test_a_lazy_layer_with_a_map_that_cannot_be_read_is_made_again(served: Served, change: str) -> None:
    """The layer was never replaced, and each read failed with EIO."""
    served.push("app", "1", image_of(estargz(*ENTRIES)))
    with served.show() as shown:
        complete(shown)
    (path,) = served.cache.glob("layers/*.chunks")
    with path.open("r+b") as file:
        if change == "torn":
            file.truncate(30)
        else:
            file.seek(4)
            file.write(b"\1")
    assert served.show().read("app/1/rootfs/d/big") == BIG


def test_a_lazy_layer_is_evicted_as_a_whole(served: Served) -> None:
    served.push("app", "1", image_of(estargz(*ENTRIES)))
    with served.show() as shown:
        complete(shown)
    with served.show() as shown:
        shown.app.layers.budget.trim(1 << 20)
    assert not list(served.cache.glob("layers/*"))


@needs_root
def test_a_prepared_cache_that_cannot_be_written_is_read_offline(served: Served) -> None:
    served.push("app", "1", image_of(layer(*ENTRIES)))
    with served.show() as shown:
        assert shown.read("app/1/rootfs/d/big") == BIG
    with read_only(served.cache):
        shown = served.show(offline=True)
        assert shown.cache == served.cache
        assert "it is only read" in (shown.app.note or "")
        assert shown.names("app/1/rootfs") == ["d", "small"]
        assert shown.read("app/1/rootfs/d/big") == BIG
        with served.show() as online:
            assert online.cache != served.cache  # what is not here has to be kept somewhere


def test_a_process_that_ends_leaves_no_more_than_the_limit_behind(served: Served) -> None:
    """A verb whose image was larger than --cache-size left all of it, until another process used the cache."""
    served.push("app", "1", image_of(*(layer(file(f"big{n}", os.urandom(2 << 20))) for n in range(3))))
    with served.show(limit=1 << 20) as shown:
        assert [len(shown.read(f"app/1/rootfs/big{n}")) for n in range(3)] == [2 << 20] * 3
        assert used_by(served.cache) > 2 << 20
    assert used_by(served.cache) <= 1 << 20
