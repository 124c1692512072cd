"""Broken images in a docker-registry, and a mount that may ask no registry; tests/e2e/faults has all other failures."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs.model.digest import Digest
from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo
from tests.support.hello import hello_program
from tests.support.images import file, image_of, layer, layer_of_tar, tar_of
from tests.support.mounted import Mounted
from tests.support.proxy import ReverseProxy
from tests.support.push import Pusher


@pytest.fixture
def mount(mount_regfs: MountRegfs, demo: Demo) -> Mounted:
    return mount_regfs("--timeout", "1m", "--default-registry", demo.address)


def errno_of(action: Callable[[], object]) -> str:
    """Return the name of the errno that *action* fails with."""
    with pytest.raises(OSError) as caught:
        action()
    return errno.errorcode[caught.value.errno or 0]


def rest_of_the_mount_lives(mount: Mounted) -> bool:
    image = mount.path / "library/hello-world/latest"
    return (image / "rootfs/hello").read_bytes() == hello_program()


@pytest.mark.parametrize(
    "tar", [b"this is no tar " * 1000, tar_of(file("big", b"x" * 100_000))[:50_000]], ids=["no tar", "cut tar"]
)
def test_a_layer_that_is_no_archive_fails_and_leaves_nothing(
    mount: Mounted, demo: Demo, tar: bytes, request: pytest.FixtureRequest
) -> None:
    name = f"broken/r{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    image = Pusher(demo.url).image(name, "1", image_of(layer_of_tar(tar)))
    assert errno_of(lambda: os.listdir(mount.path / name / "1/rootfs")) == "EIO"
    assert str(image.layers[0].digest) in mount.errors()
    assert list((mount.cache / "layers").rglob(f"*{image.layers[0].diff_id.encoded}*.index")) == []
    assert (mount.path / name / "1/manifest.json").read_bytes() == image.manifest
    assert rest_of_the_mount_lives(mount)


def test_a_layer_with_another_diff_id_is_not_shown(mount: Mounted, demo: Demo) -> None:
    push = Pusher(demo.url)
    image = push.image("broken/diff-id", "right", image_of(layer(file("file", b"content"))))
    config = image.config.replace(str(image.layers[0].diff_id).encode(), str(Digest.of(b"something else")).encode())
    push.blob("broken/diff-id", config)
    manifest = image.manifest.replace(str(Digest.of(image.config)).encode(), str(Digest.of(config)).encode())
    push.manifest("broken/diff-id", "wrong", manifest, "application/vnd.oci.image.manifest.v1+json")
    assert errno_of(lambda: os.listdir(mount.path / "broken/diff-id/wrong/rootfs")) == "EIO"
    assert image.layers[0].diff_id.encoded[-8:] in mount.errors()


def test_offline_serves_what_is_cached_and_says_so_of_the_rest(
    mount_regfs: MountRegfs, demo: Demo, proxy: ReverseProxy, tmp_path: Path
) -> None:
    cache = tmp_path / "shared"
    online = mount_regfs("--default-registry", proxy.address, cache=cache)
    (online.path / "library/hello-world/latest/rootfs/hello").read_bytes()
    online.unmount()
    proxy.seen.clear()
    offline = mount_regfs("--offline", "--default-registry", proxy.address, cache=cache)
    assert (offline.path / "library/hello-world/latest/rootfs/hello").read_bytes() == hello_program()
    assert errno_of(lambda: os.listdir(offline.path / "demo/real/v2/rootfs")) == "EHOSTUNREACH"
    assert proxy.seen == []
