"""The life of a mount: how it ends, cleanly or not, and what a moving tag does to processes inside."""

from __future__ import annotations

import errno
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from regfs.errors import MountFailure
from regfs.mount import mountpoint as mountpoints
from tests.mount.conftest import ServeSuite

TIMEOUT_S = 100


def test_sigterm_unmounts(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    assert serving.stop() == 0
    assert not serving.is_mounted()


def test_the_session_ends_with_an_unmount_from_outside(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    subprocess.run(["umount", serving.path], timeout=TIMEOUT_S, check=True)
    assert serving.process.wait(TIMEOUT_S) == 0
    assert "Traceback" not in serving.log.read_text()


def test_a_busy_mount_says_so(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    with (serving.path / "stable/file").open("rb"), pytest.raises(MountFailure, match="busy"):
        mountpoints.unmount(str(serving.path))


def test_a_busy_mount_that_was_detached_serves_processes_inside(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    with (serving.path / "stable/big").open("rb") as file:
        mountpoints.unmount(str(serving.path), lazily=True)
        assert not serving.is_mounted()
        assert os.pread(file.fileno(), 1, 2_000_001) == bytes([2_000_001 % 256])
    assert serving.process.wait(TIMEOUT_S) == 0


def test_sigterm_ends_a_busy_mount_too(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    opened = os.open(serving.path / "stable/file", os.O_RDONLY)
    assert serving.stop() == 0
    with suppress(OSError):  # ENOTCONN where libfuse 2 is told of each close
        os.close(opened)
    assert not serving.is_mounted()


def test_a_killed_server_leaves_a_dead_mount_that_can_be_told_and_removed(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    serving.process.kill()
    serving.process.wait()
    with pytest.raises(OSError) as caught:
        os.listdir(serving.path)
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    assert mountpoints.is_dead(str(serving.path))
    with pytest.raises(MountFailure, match="dead mount"):
        mountpoints.check(str(serving.path))
    assert mountpoints.detach_dead(str(serving.path))
    assert (serving.is_mounted(), os.listdir(serving.path)) == (False, [])


def test_a_live_mount_is_not_mounted_over(mounted: Path) -> None:
    with pytest.raises(MountFailure, match=r"already a mount \(fuse.regfs, docker.io\)"):
        mountpoints.check(str(mounted))
    assert not mountpoints.detach_dead(str(mounted))


def test_an_open_file_keeps_the_image_that_it_came_from(serve: ServeSuite, driver: str) -> None:
    tag = serve(driver).path / "tag"
    assert (tag / "file").read_bytes() == b"old" * 1000
    with (tag / "file").open("rb") as file:
        os.stat(tag.parent / "move")
        assert file.read() == b"old" * 1000


def test_mountinfo_tells_kind_and_source(mounted: Path) -> None:
    found = mountpoints.mounted_at(str(mounted))
    assert found is not None
    assert (found.kind, found.source) == ("fuse.regfs", "docker.io")


@pytest.mark.parametrize("words", [(), ("allow_other",)])
def test_a_directory_with_strange_characters_can_be_mounted_on(
    serve: ServeSuite, driver: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    from tests.mount.serving import Serving

    serving = Serving(driver, tmp_path / "a b,c\\d\re", words)
    try:
        assert (serving.path / "stable/file").read_bytes() == b"hello\n"
        assert serving.is_mounted()
    finally:
        serving.clean_up()
    assert not serving.is_mounted()
