"""Images: each part computed once, for as long as it is kept, and never behind another image's back."""

from __future__ import annotations

import threading

import pytest

from regfs.errors import BadManifest
from regfs.images.image import Image
from regfs.images.repository import Repository
from tests.support.fault_server import Connection
from tests.support.images import file, image_of, layer
from tests.support.memory_registry import MANIFEST
from tests.support.served import Served


def test_the_same_digest_is_the_same_image_while_it_is_kept(served: Served, app: Repository) -> None:
    built = served.push("app", "1", image_of(layer(file("a"))))
    images = served.show().images
    image = images.image(app, built.digest)
    assert images.image(app, built.digest) is image
    assert images.pinned(app, built.digest).image is image


def test_a_pinned_image_outlives_the_image(served: Served, app: Repository) -> None:
    built = served.push("app", "1", image_of(layer(file("a"))))
    images = served.show().images
    pinned = images.pinned(app, built.digest, built.media_type)
    first = pinned.image
    assert first.manifest.layers[0].digest == built.layers[0].digest
    for number in range(200):
        images.image(app, image_of(layer(file(str(number)))).digest)
    assert pinned.image is not first
    assert pinned.image.manifest == first.manifest
    assert len(served.server.paths(f"manifests/{built.digest}")) == 1


def test_a_part_is_computed_once(served: Served, app: Repository) -> None:
    built = served.push("app", "1", image_of(layer(file("a"))))
    image = served.show().images.image(app, built.digest)
    assert image.manifest is image.manifest
    assert image.layers is image.layers
    assert image.config_content == built.config
    assert len(served.server.paths("blobs/")) == 1


def test_a_part_of_one_image_does_not_wait_for_another_image(served: Served, app: Repository) -> None:
    slow, quick = served.push("app", "1", image_of(layer(file("a")))), served.push("app", "2", image_of())
    arrived, go = threading.Event(), threading.Event()

    def hold(connection: Connection) -> bool:
        arrived.set()
        go.wait(100)
        return connection.answer(connection.right())

    served.server.on("GET", f"manifests/{slow.digest}", hold)
    images = served.show().images
    waiter = threading.Thread(target=lambda: images.image(app, slow.digest).document)
    waiter.start()
    assert arrived.wait(100)
    assert images.image(app, quick.digest).document.content == quick.manifest
    go.set()
    waiter.join(100)


def test_a_broken_document_is_parsed_once_and_told_anew_each_time(served: Served, app: Repository) -> None:
    digest = served.document("app", "1", b'{"schemaVersion":2,"config":NaN}', MANIFEST)
    image = served.show().images.image(app, app.tags.resolve("1").digest)
    assert not image.is_readable
    errors = []
    for _ in range(2):
        with pytest.raises(BadManifest, match=digest) as raised:
            assert image.manifest
        errors.append(raised.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1])


def test_the_parts_are_documented_for_whoever_looks_at_the_class() -> None:
    assert Image.manifest.__doc__ == "The manifest for the wanted platform."
