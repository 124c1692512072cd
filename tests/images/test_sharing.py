"""Several daemons and verbs on one cache: each layer is fetched and unpacked once, and none waits for a dead one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from regfs.errors import RegfsError
from regfs.store.layers.layer_store import LayerStore
from tests.support.fault_server import Connection, silence
from tests.support.images import BuiltLayer, file, image_of, layer, layer_of_tar
from tests.support.served import Served
from tests.support.shown import Shown

LAYER = layer(file("a", b"a"), file("big", os.urandom(200_000)))
BIG = layer(file("big", os.urandom(3_000_000)))


def eventually(holds: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait until *holds* does: for another thread or process, which says nothing of its own accord."""
    end_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end_s, "it never came true"
        time.sleep(0.005)


@contextmanager
def listing(*shown: Shown, path: str = "app/1/rootfs") -> Iterator[list[list[str]]]:
    """Let each of *shown* list *path* in a thread of its own; at the end of the block all have."""
    listed: list[list[str]] = []
    threads = [threading.Thread(target=lambda each=each: listed.append(each.names(path))) for each in shown]
    for thread in threads:
        thread.start()
    yield listed
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()


def half_then(go: threading.Event, content: bytes) -> Callable[[Connection], bool]:
    """Send half of a blob, and the rest once *go* is set."""

    def act(connection: Connection) -> bool:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
        connection.send(content[: len(content) // 2])
        assert go.wait(100)
        connection.send(content[len(content) // 2 :])
        return True

    return act


def received(shown: Shown) -> int:
    return max((ingest.progress.received for ingest in shown.contents.under_way()), default=0)


def test_two_daemons_fetch_a_layer_once_and_the_second_sees_how_far_the_first_is(served: Served) -> None:
    served.push("app", "1", image_of(LAYER))
    go = threading.Event()
    served.server.on("GET", f"blobs/{LAYER.digest}", half_then(go, LAYER.blob))
    first, second = served.show(), served.show()
    with listing(first, second) as listed:
        eventually(lambda: received(first) > 0 and received(second) > 0)
        assert received(second) < len(LAYER.blob)
        go.set()
    assert listed == [["a", "big"]] * 2
    assert len(served.server.paths(f"blobs/{LAYER.digest}")) == 1
    assert first.stats.value("layers.ingests") + second.stats.value("layers.ingests") == 1
    assert first.stats.value("images.merges") + second.stats.value("images.merges") == 1


PREFETCH = """
import sys
from tests.support.shown import Shown
from pathlib import Path
Shown(Path(sys.argv[1]), default_registry=sys.argv[2]).names("app/1/rootfs")
"""


@pytest.mark.parametrize("built", [BIG, LAYER], ids=["big", "small"])
def test_a_daemon_takes_the_pass_over_from_a_process_that_is_killed(served: Served, built: BuiltLayer) -> None:
    served.push("app", "1", image_of(built))
    go = threading.Event()
    served.server.on("GET", f"blobs/{built.digest}", half_then(go, built.blob), times=1)
    command = [sys.executable, "-c", PREFETCH, str(served.cache), served.server.address]
    shown = served.show()
    with subprocess.Popen(command) as killed:
        eventually(lambda: served.server.paths(f"blobs/{built.digest}"))
        with listing(shown) as listed:
            eventually(lambda: received(shown) > 0)
            assert len(served.server.paths(f"blobs/{built.digest}")) == 1
            killed.kill()
        assert "big" in listed[0]
    assert len(served.server.paths(f"blobs/{built.digest}")) == 2
    # A worker of the killed one ends by itself, and takes what it wrote away; the rest is swept.
    LayerStore(served.cache).sweep()
    eventually(lambda: not list((served.cache / "ingests").iterdir()))
    go.set()


def test_a_blob_that_does_not_come_holds_up_no_other_daemon_that_has_a_right_one(served: Served) -> None:
    other = layer_of_tar(LAYER.tar, compression="zstd")
    assert other.diff_id == LAYER.diff_id
    served.push("app", "1", image_of(LAYER))
    served.push("other", "1", image_of(other))
    served.server.on("GET", f"blobs/{LAYER.digest}", silence)
    waiting, shown = served.show(), served.show()

    def give_up() -> None:
        with suppress(RegfsError):
            waiting.names("app/1/rootfs")

    thread = threading.Thread(target=give_up)
    thread.start()
    eventually(waiting.contents.under_way)
    assert shown.names("other/1/rootfs") == ["a", "big"]
    served.server.stop()
    thread.join(100)


def test_layers_are_shared_out_among_the_daemons_that_want_them(served: Served) -> None:
    layers = [layer(file(f"f{number}", os.urandom(1000))) for number in range(12)]
    served.push("app", "1", image_of(*layers))
    daemons = [served.show() for _ in range(3)]
    with listing(*daemons) as listed:
        pass
    assert len({tuple(names) for names in listed}) == 1
    assert [len(served.server.paths(f"blobs/{each.digest}")) for each in layers] == [1] * len(layers)
    assert sum(each.stats.value("images.merges") for each in daemons) == 1
