"""What a verb takes for an image."""

from __future__ import annotations

import pytest

from regfs.errors import InvalidName, InvalidOption
from regfs.mount.mountpoint import Mounted
from regfs.verbs import read_reference

DIGEST = "sha256:" + "0" * 64
MOUNTS = [Mounted("/", "8:1", "ext4", "/dev/root"), Mounted("/mnt/reg", "0:50", "fuse.regfs", "ghcr.io")]


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("docker://quay.io/a/b:1", "quay.io/a/b:1"),
        (f"a/b@{DIGEST}", f"docker.io/a/b@{DIGEST}"),
        ("/mnt/reg/owner/app/v1", "ghcr.io/owner/app:v1"),
        ("/mnt/reg/owner/app/v1/rootfs", "ghcr.io/owner/app:v1"),
        ("/mnt/reg/docker.io/library/debian/12/", "docker.io/library/debian:12"),
        (f"/mnt/reg/owner/app/{DIGEST}", f"ghcr.io/owner/app@{DIGEST}"),
        ("/mnt/reg/owner/app:v1", "ghcr.io/owner/app:v1"),
        (f"/mnt/reg/owner/app@{DIGEST}", f"ghcr.io/owner/app@{DIGEST}"),
    ],
)
def test_an_image_is_named_by_reference_or_by_its_path_in_a_mount(text: str, reference: str) -> None:
    assert str(read_reference(text, "docker.io", MOUNTS)) == reference


@pytest.mark.parametrize("text", ["/home/ann/debian", "./debian", "/mnt/reg", "/mnt/reg/owner"])
def test_a_path_elsewhere_is_no_image(text: str) -> None:
    with pytest.raises(InvalidOption):
        read_reference(text, "docker.io", MOUNTS)


def test_a_part_of_an_image_is_no_image() -> None:
    with pytest.raises(InvalidName):
        read_reference("/mnt/reg/owner/app/v1/config.json/x y", "docker.io", MOUNTS)
