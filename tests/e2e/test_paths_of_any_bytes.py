"""Mount points, cache directories and log files whose names are not UTF-8, have line breaks, or are very long."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.app.cache_directory import CACHE_PATH_MAX
from tests.support.hello import host_architecture
from tests.support.images import file, image_of, layer
from tests.support.mounted import environment_for, regfs_command, run_regfs
from tests.support.served import Served

# A percent sign and a question mark mean something in SQLite's addresses, a carriage return ends a line for Python.
NAME = b"caf\xe9 \xff two\nlines\r a%2Fb#c?d=e,f;'\"\\040"


def started(*arguments: str | bytes, home: Path) -> subprocess.CompletedProcess[bytes]:
    """Run regfs from its start, with what Python makes of such arguments."""
    return subprocess.run(
        [*regfs_command(), *arguments], env=environment_for(home), capture_output=True, timeout=100, check=False
    )


def regfs(*arguments: str | bytes, home: Path) -> subprocess.CompletedProcess[bytes]:
    done = run_regfs(*map(os.fsdecode, arguments), home=home)
    return subprocess.CompletedProcess(arguments, done.returncode, os.fsencode(done.stdout), os.fsencode(done.stderr))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Served]:
    """A registry with app:1, whose layer takes the way through a process of its own."""
    served = Served(tmp_path / "unused")
    image = image_of(
        layer(file("motd", b"hello")), layer(file("big", os.urandom(3_000_000))), architecture=host_architecture()
    )
    served.push("app", "1", image)
    yield served
    served.server.stop()


def test_a_mount_whose_paths_have_any_bytes_works_and_all_verbs_know_it(
    app: Served, driver: str, needs_fuse: None, tmp_path: Path
) -> None:
    point, cache, log = (os.path.join(os.fsencode(tmp_path), letter + NAME) for letter in (b"m", b"c", b"l"))
    os.mkdir(point)
    made = started(
        "--driver", driver, "--default-registry", app.server.address, "--cache-dir", cache, "--log-file", log, point,
        home=tmp_path,
    )  # fmt: skip
    try:
        assert (made.returncode, made.stderr, made.stdout.count(b"\n")) == (0, b"", 1)
        with open(os.path.join(point, b"app/1/rootfs/motd"), "rb") as motd:
            assert motd.read() == b"hello"
        with open(os.path.join(point, b".regfs/stats.json"), "rb") as stats:
            assert json.load(stats)["bugs"] == 0
        told = json.loads(regfs("status", "--format", "json", point, home=tmp_path).stdout)
        assert [os.fsencode(each["mountpoint"]) for each in told] == [point]
        assert os.fsencode(told[0]["cache"]["path"]) == cache
        shown = regfs("status", point, home=tmp_path).stdout
        assert shown.splitlines()[0].startswith(b"%s/mcaf\xe9 \xff two\\x0alines\\x0d a%%2Fb" % os.fsencode(tmp_path))
        assert b"Traceback" not in regfs("status", home=tmp_path).stderr
        verbs: tuple[list[str | bytes], ...] = (
            ["refresh", point],
            ["cache", "du", "--cache-dir", cache],
            ["cache", "verify", "--cache-dir", cache],
        )
        for verb in verbs:
            done = regfs(*verb, home=tmp_path)
            assert (verb[0], done.returncode, done.stderr) == (verb[0], 0, b"")
    finally:
        gone = regfs("umount", point, home=tmp_path)
    assert (gone.returncode, gone.stderr) == (0, b"")
    assert not os.path.ismount(point)
    with open(log, "rb") as lines:
        assert b"Traceback" not in lines.read()


def test_a_cache_path_of_the_greatest_length_works(app: Served, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    while (left := CACHE_PATH_MAX - len(os.fspath(cache))) > 0:
        cache = cache / ("d" * min(left - 1, 100)) if left > 1 else cache.with_name(cache.name + "d")
    assert len(os.fspath(cache)) == CACHE_PATH_MAX
    image = f"{app.server.address}/app:1"
    done = regfs("unpack", "--cache-dir", os.fspath(cache), image, os.fspath(tmp_path / "unpacked"), home=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "unpacked/motd").read_bytes() == b"hello"


@pytest.mark.parametrize("is_a_link", [True, False])
def test_a_cache_path_that_is_too_long_for_sqlite_is_told_at_the_start(
    needs_fuse: None, tmp_path: Path, is_a_link: bool
) -> None:
    cache, point = tmp_path / ("d" * 200) / ("d" * 200), tmp_path / "m"
    cache.mkdir(parents=True)
    point.mkdir()
    (tmp_path / "short").symlink_to(cache)
    done = regfs("--cache-dir", os.fspath(tmp_path / "short" if is_a_link else cache), os.fspath(point), home=tmp_path)
    assert done.returncode == 2
    assert b"--cache-dir" in done.stderr
    assert not os.path.ismount(point)
