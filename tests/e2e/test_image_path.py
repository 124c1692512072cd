"""`regfs path`: the path of an image that does not move when its tag does."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo, needs_root
from tests.support.images import file, image_of, layer
from tests.support.mounted import Mounted, alone_with
from tests.support.served import Served


@pytest.fixture(scope="module")
def mount(needs_fuse: None, demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount that no test changes."""
    with Mounted(tmp_path_factory.mktemp("paths"), options=["--default-registry", demo.address]) as made:
        yield made


def path_of(mount: Mounted, image: str | Path, *options: str | Path) -> Path:
    """Return what `regfs path` prints, in the mount that *options* name."""
    return Path(mount.run(*mount.regfs, "path", *(options or ("--mount", mount.path)), image).stdout.rstrip("\n"))


def refused(mount: Mounted, *arguments: str | Path) -> tuple[int, str]:
    """Return exit code and complaint of `regfs path`."""
    done = mount.run(*mount.regfs, "path", *arguments, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_the_path_of_a_tag_goes_by_the_digest_that_the_tag_names(mount: Mounted, demo: Demo) -> None:
    path = path_of(mount, "demo/real:v2")
    assert path.is_relative_to(mount.path)
    assert path.name == f"@sha256-{demo.real.digest.encoded}"
    assert ":" not in str(path)  # so that `podman -v` and overlay's lowerdir= take it
    assert (path / "digest").read_text() == f"{demo.real.digest}\n"
    assert (path / "rootfs/etc/os-release").exists()


def test_the_path_of_a_tag_is_that_of_its_attribute(mount: Mounted) -> None:
    path = path_of(mount, "demo/real:v2")
    told = os.getxattr(mount.path / "demo/real/v2", "user.regfs.path")
    assert path == mount.path / os.fsdecode(told)


def test_the_same_image_has_one_path_however_it_is_named(mount: Mounted, demo: Demo) -> None:
    names: list[str | Path] = [
        f"{demo.address}/demo/real:v2",
        f"demo/real@{demo.real.digest}",
        f"demo/real@{demo.real.digest.encoded[:12]}",
        mount.path / "demo/real/v2",
    ]
    assert {path_of(mount, name) for name in names} == {path_of(mount, "demo/real:v2")}


def test_a_path_in_a_mount_says_itself_which_mount_is_meant(mount: Mounted) -> None:
    assert Path(mount.run(*mount.regfs, "path", mount.path / "demo/real/v2").stdout.strip()).is_relative_to(mount.path)


def test_what_is_not_there_has_no_path(mount: Mounted) -> None:
    code, complaint = refused(mount, "--mount", mount.path, "demo/real:no-such-tag")
    assert (code, "demo/real:no-such-tag" in complaint) == (3, True)
    code, complaint = refused(mount, "--mount", mount.home, "demo/real:v2")
    assert (code, f"no regfs is mounted on {mount.home}" in complaint) == (1, True)


def test_the_mount_that_is_named_or_worked_in_is_taken_of_several(
    mount: Mounted, mount_regfs: MountRegfs, demo: Demo
) -> None:
    other = mount_regfs("--default-registry", demo.address)
    name = f"{demo.address}/demo/real:v2"
    assert path_of(mount, name, "--mount", other.path).is_relative_to(other.path)
    command = f"cd {shlex.quote(str(other.path))}/demo && exec {' '.join(mount.regfs)} path demo/real:v2"
    assert Path(mount.run("sh", "-c", command).stdout.strip()).is_relative_to(other.path)


@needs_root
def test_the_only_mount_need_not_be_named(mount: Mounted) -> None:
    done = mount.run(*alone_with(mount), *mount.regfs, "path", "demo/real:v2")
    assert Path(done.stdout.strip()).is_relative_to(mount.path)


@needs_root
def test_a_bind_mount_of_an_image_leads_to_its_path(mount: Mounted, tmp_path: Path) -> None:
    (bound := tmp_path / "bound").mkdir()
    command = f"mount --bind {mount.path}/demo/real/v2/rootfs {bound}; cd {bound}; "
    regfs = shlex.join([*mount.regfs, "path"])
    own_namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    for place in (bound, ".", f"--mount {mount.path} {bound}"):
        done = mount.run(*own_namespace, f"{command}exec {regfs} {place}")
        assert Path(done.stdout.strip()) == path_of(mount, "demo/real:v2")


def test_the_path_is_that_of_the_newest_image_also_while_an_older_one_is_in_use(
    mount_regfs: MountRegfs, served: Served
) -> None:
    served.push("team/app", "v1", image_of(layer(file("version", b"one"))))
    mount = mount_regfs("--tag-ttl", "0s", "--default-registry", served.server.address)
    tag = mount.path / "team/app/v1"
    old = path_of(mount, "team/app:v1")
    stay = ["sh", "-c", 'cd "$0" && echo && read -r _', str(tag / "rootfs")]
    with subprocess.Popen(stay, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"\n"
        served.push("team/app", "v1", image_of(layer(file("version", b"two"))))
        assert (path_of(mount, "team/app:v1") / "rootfs/version").read_text() == "two"
        assert (tag / "rootfs/version").read_text() == "one"
        assert (old / "rootfs/version").read_text() == "one"
