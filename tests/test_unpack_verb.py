"""`regfs unpack` that does not get to its end: what it leaves, and what it says of that."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_server import FaultServer, reply, silence
from tests.support.hello import host_architecture
from tests.support.images import directory, file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import environment_for, regfs_command, run_regfs


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A registry with demo/app:1, which has two files of a megabyte, and one in a directory."""
    application = MemoryRegistry()
    contents = layer(
        file("first", os.urandom(1 << 20)),
        file("second", os.urandom(1 << 20)),
        directory("below"),
        file("below/third", b"3"),
    )
    image = image_of(contents, architecture=host_architecture())
    for content in image.blobs().values():
        application.add_blob("demo/app", content)
    application.add_manifest("demo/app", image.manifest, tag="1", media_type=image.media_type)
    with FaultServer(application) as served:
        yield served


def command(server: FaultServer, *words: str) -> list[str]:
    return [*regfs_command(), "unpack", "--cache-dir", "cache", f"{server.address}/demo/app:1", *words]


def unpack(server: FaultServer, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_regfs(*command(server, *words)[len(regfs_command()) :], home=directory)


def test_a_part_of_an_image_is_written_alone(server: FaultServer, tmp_path: Path) -> None:
    image = f"{server.address}/demo/app:1"
    done = run_regfs("unpack", "--cache-dir", "cache", f"{image}:/first", "out", home=tmp_path)
    assert (done.returncode, os.listdir(tmp_path / "out")) == (0, ["first"]), done.stderr
    done = run_regfs("unpack", "--cache-dir", "cache", f"{image}:/below", "below", home=tmp_path)
    assert (done.returncode, os.listdir(tmp_path / "below")) == (0, ["third"]), done.stderr
    done = run_regfs("unpack", "--cache-dir", "cache", f"{image}:/first/", "none", home=tmp_path)
    assert (done.returncode, (tmp_path / "none").exists()) == (1, False), done.stderr


def test_an_image_that_cannot_be_had_leaves_no_empty_directory(server: FaultServer, tmp_path: Path) -> None:
    server.on("GET", "/manifests/", reply(404))
    server.on("HEAD", "/manifests/", reply(404))
    assert unpack(server, tmp_path, "out/below").returncode == 3
    server.stop()
    assert unpack(server, tmp_path, "out/below").returncode == 5
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_made_is_told_before_anything_is_fetched(
    server: FaultServer, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for name, said in {"file": "not a directory", "file/out": "cannot be made", "full": "is not empty"}.items():
        done = unpack(server, tmp_path, name)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert server.paths() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_full_disk_leaves_nothing_half_written(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "small", tmp_path / "small"], check=True)
    try:
        done = unpack(server, tmp_path, "-q", "small/out")
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert not (tmp_path / "small/out").exists()
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_writing_leaves_nothing_half_written(
    number: signal.Signals, is_there: bool, server: FaultServer, tmp_path: Path
) -> None:
    """SIGTERM, which `timeout` and systemd send, once left a part of the tree without a word."""
    if is_there:
        (tmp_path / "out").mkdir()
    program = f"""
import os, signal
from regfs.cli import main
from regfs.export.unpack import Unpacker
Unpacker._copy = lambda *_: os.kill(os.getpid(), {int(number)})
main()
"""
    words = [sys.executable, "-c", program, *command(server, "-q", "out")[len(regfs_command()) :]]
    done = subprocess.run(
        words, env=environment_for(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (128 + number, "")
    assert (tmp_path / "out").exists() == is_there
    assert not any(tmp_path.glob("out/*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_fetching_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/no/image"
        words = [*regfs_command(), "unpack", "--cache-dir", "cache", image, "out"]
        with subprocess.Popen(words, env=environment_for(tmp_path), cwd=tmp_path) as verb:
            connection, _ = silent.accept()  # the verb is at work
            verb.send_signal(number)
            assert verb.wait(timeout=100) == 128 + number
            connection.close()
    assert not (tmp_path / "out").exists()


def test_the_timeout_of_a_verb_holds_for_a_registry_that_says_nothing(server: FaultServer, tmp_path: Path) -> None:
    server.on("*", "/v2/", silence)
    done = unpack(server, tmp_path, "--timeout", "1s")
    assert done.returncode == 5
    assert re.search(rf"tag {server.address}/demo/app:1: no answer within 1 s \(--timeout\)", done.stderr)


def test_a_second_interrupt_at_once_does_not_stop_the_removal_of_a_half_written_copy(
    server: FaultServer, tmp_path: Path
) -> None:
    """`timeout -s INT` and some terminals send two: the second one left a directory `.regfs-…` behind."""
    program = """
import os, signal
from regfs.cli import main
from regfs.export.unpack import Unpacker
from regfs.process import removal

def interrupted(*_):
    os.kill(os.getpid(), signal.SIGINT)

remove = removal.remove_tree
def interrupted_again(top):
    os.kill(os.getpid(), signal.SIGINT)
    remove(top)

Unpacker._copy = interrupted
removal.remove_tree = interrupted_again
main()
"""
    words = ["cp", "--cache-dir", "cache", "-q", f"{server.address}/demo/app:1:/first", "copy"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environment_for(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")
    assert os.listdir(tmp_path) == ["cache"]
