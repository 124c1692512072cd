"""What a verb takes for an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from regfs.errors import InvalidName, InvalidOption
from regfs.mount.mountpoint import Mounted
from regfs.verbs.image_argument import read_reference
from regfs.verbs.listings import read_registry

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
        (f"/mnt/reg/owner/app/@sha256-{'0' * 64}/rootfs", f"ghcr.io/owner/app@{DIGEST}"),
        ("/mnt/reg/owner/app/@440129be81b2", "ghcr.io/owner/app@440129be81b2"),
        ("/mnt/reg/app:v1/rootfs", "ghcr.io/app:v1"),
        ("/mnt/reg/docker.io/debian:12", "docker.io/library/debian:12"),
        ("/mnt/reg/docker.io/debian/12", "docker.io/library/debian:12"),
        ("/mnt/reg/localhost+5000/app/v1", "localhost:5000/app:v1"),
        ("/mnt/reg/owner/app/@/v1/2", "ghcr.io/owner/app/v1:2"),
        ("/mnt/reg/owner/app/v1@2026-11-01T0000Z/rootfs", "ghcr.io/owner/app:v1@2026-11-01T00:00:00Z"),
        ("/mnt/reg/owner/app:v1@2026-11-01", "ghcr.io/owner/app:v1@2026-11-01T00:00:00Z"),
        ("/mnt/reg/docker.io/library/debian@2026-11-01", "docker.io/library/debian:latest@2026-11-01T00:00:00Z"),
        ("/mnt/reg/docker.io/debian@2026-11-01", "docker.io/library/debian:latest@2026-11-01T00:00:00Z"),
    ],
)
def test_an_image_is_named_by_reference_or_by_its_path_in_a_mount(text: str, reference: str) -> None:
    assert str(read_reference(text, "docker.io", MOUNTS)) == reference


@pytest.mark.parametrize(
    ("text", "registry", "below"),
    [
        ("quay.io", "quay.io", ""),
        ("/mnt/reg", "ghcr.io", ""),
        ("/mnt/reg/", "ghcr.io", ""),
        ("/mnt/reg/owner", "ghcr.io", "owner/"),
        ("/mnt/reg/docker.io/", "docker.io", ""),
        ("/mnt/reg/localhost+5000/@/team/x", "localhost:5000", "team/x/"),
    ],
)
def test_a_registry_is_named_by_host_or_by_its_path_in_a_mount(text: str, registry: str, below: str) -> None:
    assert read_registry(text, MOUNTS) == (registry, below)


@pytest.mark.parametrize("text", ["/srv/app", "/srv/app/rootfs", "/srv/root"])
def test_a_bind_mount_of_an_image_is_that_image(text: str) -> None:
    bound = [
        Mounted("/srv/app", "0:50", "fuse.regfs", "ghcr.io", root="/owner/app/v1"),
        Mounted("/srv/root", "0:50", "fuse.regfs", "ghcr.io", root="/owner/app/v1/rootfs"),
    ]
    assert str(read_reference(text, "docker.io", [*MOUNTS, *bound])) == "ghcr.io/owner/app:v1"


@pytest.mark.parametrize("text", ["/home/ann/debian", "./debian", "/mnt/reg", "/mnt/reg/owner"])
def test_a_path_elsewhere_is_no_image(text: str) -> None:
    with pytest.raises(InvalidOption):
        read_reference(text, "docker.io", MOUNTS)


def test_a_part_of_an_image_is_no_image() -> None:
    with pytest.raises(InvalidName):
        read_reference("/mnt/reg/owner/app/v1/config.json/x y", "docker.io", MOUNTS)


def test_a_relative_path_through_a_mount_point_is_a_path_as_the_shell_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`regfs unpack m/owner/app/v1 out` once asked Docker Hub for a repository m/owner/app/v1."""
    (tmp_path / "m").mkdir()
    (tmp_path / "link").symlink_to("m/owner")
    (tmp_path / "debian").mkdir()
    mounts = [Mounted(str(tmp_path / "m"), "0:51", "fuse.regfs", "ghcr.io")]
    monkeypatch.chdir(tmp_path)
    for text, reference in {
        "m/owner/app/v1": "ghcr.io/owner/app:v1",
        "m/owner/app/v1/rootfs/": "ghcr.io/owner/app:v1",
        "link/app/v1": "ghcr.io/owner/app:v1",
        "debian": "docker.io/library/debian:latest",
        "other/owner/app": "docker.io/other/owner/app:latest",
    }.items():
        assert str(read_reference(text, "docker.io", mounts)) == reference


def test_inside_a_mount_a_bare_name_is_a_reference_and_a_path_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner").mkdir()
    mounts = [Mounted(str(tmp_path), "0:51", "fuse.regfs", "ghcr.io")]
    monkeypatch.chdir(tmp_path / "owner")
    assert str(read_reference("quay.io/a/b:1", "docker.io", mounts)) == "quay.io/a/b:1"
    assert str(read_reference("./app/v1", "docker.io", mounts)) == "ghcr.io/owner/app:v1"
    assert str(read_reference("app/v1/", "docker.io", mounts)) == "ghcr.io/owner/app:v1", "as the shell completes it"


def test_a_name_with_a_slash_at_its_end_is_told_without_it() -> None:
    """`regfs unpack ghcr.io/owner/app/` once said that 'owner/app/' is not a repository."""
    with pytest.raises(InvalidOption, match=r"the image's name is ghcr\.io/owner/app$"):
        read_reference("ghcr.io/owner/app/", "docker.io", MOUNTS)
