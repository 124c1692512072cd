"""What only the kernel driver can do, by real mounts, and the ways in which it can mount."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from regfs.mount import mountpoint as mountpoints
from tests.mount.conftest import ServeSuite
from tests.mount.memory_tree import BIG
from tests.mount.serving import Serving

TIMEOUT_S = 100

pytestmark = pytest.mark.usefixtures("needs_kernel_driver")


def counters(mountpoint: Path) -> dict[str, Any]:
    counted: dict[str, Any] = json.loads((mountpoint / "counters").read_text())
    return counted


def lookups(mountpoint: Path) -> dict[str, int]:
    return {name: times for name, times in counters(mountpoint).items() if not name.startswith("reads of ")}


def stat_quietly(path: Path) -> None:
    try:
        os.stat(path)
    except FileNotFoundError:
        pass


def test_what_is_below_a_digest_is_looked_up_once(serve: ServeSuite) -> None:
    path = serve("kernel").path
    for _ in range(3):
        os.stat(path / "stable/whiteouts/.wh.gone")
        os.stat(path / "moving/file")
        stat_quietly(path / "stable/whiteouts/none")
        stat_quietly(path / "nothing")
    counted = counters(path)
    assert (counted[".wh.gone"], counted["none"]) == (1, 1)
    assert (counted["moving"], counted["file"], counted["nothing"]) == (3, 3, 3)


def test_a_listing_below_a_digest_saves_every_look_up(serve: ServeSuite) -> None:
    path = serve("kernel").path
    subprocess.run(["ls", "-lR", path / "stable"], stdout=subprocess.DEVNULL, timeout=TIMEOUT_S, check=True)
    assert set(lookups(path)) == {"stable", "counters"}


def test_a_small_file_costs_one_read_however_often_it_is_opened(serve: ServeSuite) -> None:
    path = serve("kernel").path
    assert {(path / "stable/file").read_bytes() for _ in range(5)} == {b"hello\n"}
    assert len(counters(path)["reads of file"]) == 1


def test_a_big_file_is_read_in_big_pieces_and_kept(serve: ServeSuite) -> None:
    path = serve("kernel").path
    assert {(path / "stable/big").read_bytes() for _ in range(2)} == {BIG}
    reads = counters(path)["reads of big"]
    assert max(reads) == 1 << 20
    assert sum(reads) <= len(BIG) + (2 << 20)


def test_the_kernel_reads_a_file_itself_that_lies_on_disk(serve: ServeSuite) -> None:
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 9):
        pytest.skip("passthrough needs Linux 6.9")
    path = serve("kernel").path
    assert (path / "stable/backed").read_bytes() == BIG
    assert counters(path)["reads of backed"] == []


def test_a_process_inside_a_tag_that_moves_keeps_the_old_image_and_others_see_the_new(serve: ServeSuite) -> None:
    path = serve("kernel").path
    inside = os.open(path / "tag", os.O_RDONLY | os.O_DIRECTORY)
    os.stat(path / "move")
    assert (path / "tag/later").read_bytes() == b"new"
    with open(os.open("later", os.O_RDONLY, dir_fd=inside), "rb") as file:
        assert file.read() == b"old"
    os.close(inside)


def test_a_refresh_lets_the_kernel_look_names_up_again(serve: ServeSuite) -> None:
    serving = serve("kernel")
    os.stat(serving.path / "stable")
    with open(serving.path / "stable/file", "rb") as file:
        serving.process.send_signal(signal.SIGHUP)
        while counters(serving.path)["stable"] == 1:
            os.stat(serving.path / "stable")
        assert file.read() == b"hello\n"


def test_without_privileges_the_helper_mounts_and_unmounts(serve: ServeSuite) -> None:
    serving = serve("kernel", words=("without_sys_admin",))
    assert (serving.path / "stable/backed").read_bytes() == BIG
    assert serving.stop() == 0
    assert not serving.is_mounted()


def test_in_a_user_namespace_no_helper_is_needed(serve: ServeSuite, tmp_path: Path) -> None:
    prefix = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this system allows no user namespaces")
    serving = serve("kernel", prefix=(*prefix, "env", f"PATH={tmp_path}"))
    inside = ["nsenter", "--user", "--mount", "--target", str(serving.process.pid)]
    done = subprocess.run(
        [*inside, "cat", serving.path / "stable/file"], capture_output=True, check=True, timeout=TIMEOUT_S
    )
    assert done.stdout == b"hello\n"


def test_a_session_leaves_a_mount_alone_that_another_has_made_at_its_place(serve: ServeSuite, tmp_path: Path) -> None:
    first = serve("kernel")
    opened = os.open(first.path / "stable/file", os.O_RDONLY)
    mountpoints.unmount(str(first.path), lazily=True)
    second = Serving("kernel", first.path)
    try:
        assert first.stop() == 0
        assert (second.path / "stable/file").read_bytes() == b"hello\n"
    finally:
        os.close(opened)
        second.clean_up()
