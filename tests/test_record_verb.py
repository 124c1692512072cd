"""`regfs record`: what a program reads of an image is kept, pushed, found by others and fetched ahead there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from regfs.errors import Offline
from tests.images.test_lazy_layers import join_threads
from tests.support.images import directory, file, image_of, symlink
from tests.support.lazy_layers import estargz
from tests.support.mounted import as_user, environment_for, regfs_command
from tests.support.proxy import ReverseProxy
from tests.support.push import Pusher
from tests.support.real_root import busybox
from tests.support.registry import DockerRegistry
from tests.support.shown import Shown

FIRST, SECOND, UNREAD = (os.urandom(300_000) for _ in range(3))
BUSYBOX = busybox()
pytestmark = pytest.mark.skipif(BUSYBOX is None, reason="needs a static busybox")


@pytest.fixture(scope="module")
def image(docker_registry: DockerRegistry) -> str:
    """Push an image that is read in parts; return its repository."""
    assert BUSYBOX is not None
    built = estargz(
        directory("bin"), file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755), symlink("bin/cat", "busybox"),
        directory("data"), file("data/second", SECOND), file("data/unread", UNREAD), file("data/first", FIRST),
        file("small", b"x"), directory("tmp"),
        chunk_size=100_000,
    )  # fmt: skip
    Pusher(docker_registry.url).image("record/app", "1", image_of(built, command=["/bin/cat", "/small"]))
    return "record/app"


@pytest.fixture
def proxy(docker_registry: DockerRegistry) -> Iterator[ReverseProxy]:
    with ReverseProxy(docker_registry.address) as server:
        yield server


def recorded(
    home: Path, *words: str, uid: int | None = None, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [*as_user(uid), *regfs_command(), "record", "--cache-dir", str(home / "cache"), *words]
    return subprocess.run(command, capture_output=True, env=environment_for(home, settings), timeout=100, check=False)


def is_here(shown: Shown, path: str) -> bool:
    with Shown(shown.cache, default_registry=shown.app.config.default_registry, offline=True) as offline:
        try:
            offline.read(path)
        except Offline:
            return False
        return True


def asked(proxy: ReverseProxy) -> list[str]:
    """Return the requests that asked what refers to the image."""
    return [seen.path for seen in proxy.seen if "/referrers/" in seen.path or "/manifests/sha256-" in seen.path]


def test_a_start_that_was_pushed_is_replayed_by_another_machine(
    image: str, docker_registry: DockerRegistry, proxy: ReverseProxy, tmp_path: Path
) -> None:
    name = f"{docker_registry.address}/{image}:1"
    done = recorded(tmp_path, "--push", name, "--", "/bin/cat", "/data/first", "/data/second")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(FIRST + SECOND)
    assert b"pushed as" in done.stderr
    with Shown(tmp_path / "another", default_registry=proxy.address, rest_from=1.0) as shown:
        assert shown.read(f"{image}/1/rootfs/small") == b"x"
        join_threads("flight ('start'")
        assert shown.stats.value("starts.replays") == 1
        assert is_here(shown, f"{image}/1/rootfs/data/first")
        assert is_here(shown, f"{image}/1/rootfs/data/second")
        assert not is_here(shown, f"{image}/1/rootfs/data/unread")
        before = len(proxy.seen)
        assert shown.read(f"{image}/1/rootfs/data/first") == FIRST
        assert len(proxy.seen) == before
    # distribution has no API for referrers: one request finds that out, and one the tag; then both are remembered
    assert len(asked(proxy)) == 2
    with Shown(tmp_path / "another", default_registry=proxy.address, rest_from=1.0) as again:
        assert again.read(f"{image}/1/rootfs/small") == b"x"
        join_threads("flight ('start'")
    assert len(asked(proxy)) == 2


def test_without_a_command_the_image_says_what_runs_and_its_exit_code_counts(
    image: str, docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    name = f"{docker_registry.address}/{image}:1"
    assert recorded(tmp_path, name).stdout.startswith(b"x")
    failed = recorded(tmp_path, name, "--", "/bin/cat", "/missing")
    assert failed.returncode == 1
    assert b"/missing" in failed.stderr


def test_the_settings_hold_for_record_too(image: str, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    """REGFS_DEFAULT_REGISTRY and regfs.toml once held for every verb but this one, which then asked Docker Hub."""
    settings = {"REGFS_DEFAULT_REGISTRY": docker_registry.address, "REGFS_OFFLINE": "1"}
    done = recorded(tmp_path, f"{image}:1", settings=settings)
    assert done.returncode == 125
    assert f"{docker_registry.address}/{image}:1".encode() in done.stderr
    assert b"offline" in done.stderr


def test_a_program_that_goes_on_is_ended_in_time(image: str, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    name = f"{docker_registry.address}/{image}:1"
    done = recorded(tmp_path, "--for", "1s", name, "--", "/bin/busybox", "sleep", "1000")
    assert done.returncode == 0, done.stderr


def test_an_ordinary_user_records_too(image: str, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    home = tmp_path / "home"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    for parent in [*home.parents][:-2]:
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(0o755)
    name = f"{docker_registry.address}/{image}:1"
    done = recorded(home, name, "--", "/bin/cat", "/data/first", uid=65534 if os.getuid() == 0 else None)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(FIRST)
