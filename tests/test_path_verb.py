"""`regfs path` with several mounts: which of them is meant. What it prints is tested in e2e/test_image_path.py."""

from __future__ import annotations

import pytest

from regfs.errors import InvalidOption
from regfs.mount.mountpoint import Mounted
from regfs.verbs.path import _among

HUB, LAB, OTHER = (
    Mounted(point, device, "fuse.regfs", source)
    for point, device, source in (
        ("/mnt/hub", "0:50", "docker.io"), ("/mnt/lab", "0:51", "lab:5000"), ("/mnt/other", "0:52", "docker.io"),
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("mounts", "image", "meant"),
    [
        ([LAB, HUB], "debian:12", HUB),
        ([LAB, HUB], "lab:5000/debian:12", LAB),
        ([HUB, LAB], "lab:5000/debian:12", LAB),
        ([HUB, LAB], "docker://lab:5000/app", LAB),
        ([HUB, LAB], "LAB:5000/app", LAB),
        ([HUB, OTHER], "debian:12", HUB),
        ([OTHER, HUB], "debian:12", OTHER),
        ([LAB, HUB], "ghcr.io/org/app", HUB),
        ([LAB], "ghcr.io/org/app", LAB),
    ],
)
def test_the_mount_of_the_registry_is_taken_then_the_default_one_then_the_first(
    mounts: list[Mounted], image: str, meant: Mounted
) -> None:
    """`regfs path 127.0.0.1:5000/app:1` wanted --mount, though one of the mounts was that registry's."""
    assert _among(mounts, image, "docker.io") == meant


def test_a_name_without_a_registry_is_not_guessed() -> None:
    with pytest.raises(InvalidOption, match="several mounts, /mnt/lab, /mnt/hub"):
        _among([LAB, HUB], "app:1", "registry.example")
