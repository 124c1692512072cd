"""Rot under a tree that shows the image: it is told, and the next read has the right bytes."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from regfs.app.upkeep import scrub
from tests.store.test_scrub import rot
from tests.support.images import file, image_of, layer
from tests.support.served import Served

CONTENT = bytes(range(256)) * 4096


def test_a_rotten_layer_in_use_is_fetched_again_and_told(served: Served) -> None:
    built = served.push("app", "1", image_of(layer(file("a", CONTENT))))
    shown = served.show()
    assert shown.read("app/1/rootfs/a") == CONTENT
    app = shown.app
    index = app.layers.index_path(built.layers[0].diff_id)
    rot(app.layers.data_path(built.layers[0].diff_id), 100_000)
    assert shown.read("app/1/rootfs/a") != CONTENT  # a read does not tell: the file has its size
    opened = shown.tree.open(shown.find("app/1/rootfs/a").node)
    ended = threading.Event()
    checking = replace(app, config=replace(app.config, scrub_age_s=1.0))
    thread = threading.Thread(target=scrub, args=(checking, ended), daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not app.stats.value("cache.damaged") or not app.layers.is_whole(built.layers[0].diff_id):
        assert time.monotonic() < end
        time.sleep(0.02)
    ended.set()
    thread.join()
    opened.close()
    assert shown.read("app/1/rootfs/a") == CONTENT
    assert shown.stats.value("layers.ingests") == 2
    assert app.stats.value("cache.scrubbed_bytes") > len(CONTENT)
    told = shown.read(".regfs/errors").decode()
    assert f"{index}: damaged" in told
    assert "fetched again" in told
