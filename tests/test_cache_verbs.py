"""`regfs cache du|prune|verify` and `regfs prefetch`, as a user runs them, beside mounts that use the same cache."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.support.images import BuiltImage, directory, file, image_of, layer
from tests.support.mounted import environment_for, regfs_command
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry

BIG = os.urandom(300_000)
SMALL = b"a small file"


@pytest.fixture(scope="module")
def image(docker_registry: DockerRegistry) -> BuiltImage:
    base = layer(directory("etc"), file("etc/small", SMALL), file("big", BIG))
    return Pusher(docker_registry.url).image("cache/verbs", "1", image_of(base, layer(file("above", b"above"))))


Regfs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def regfs(tmp_path: Path, cache: Path) -> Regfs:
    """Run a verb on the test's cache."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*regfs_command(), *words, "--cache-dir", str(cache)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment_for(tmp_path), timeout=100, check=False
        )

    return run


@pytest.fixture
def prefetched(regfs: Regfs, docker_registry: DockerRegistry, image: BuiltImage) -> str:
    """Fetch the image; return the name that it was fetched by."""
    name = f"{docker_registry.address}/cache/verbs:1"
    done = regfs("prefetch", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{name}@{image.digest}\n"
    return name


def usage(regfs: Regfs) -> dict[str, dict[str, int]]:
    kinds: dict[str, dict[str, int]] = json.loads(regfs("cache", "du", "--format", "json").stdout)["kinds"]
    return kinds


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_prefetched_image_is_served_without_a_network(
    prefetched: str, mount_regfs: MountRegfs, cache: Path, docker_registry: DockerRegistry
) -> None:
    mount = mount_regfs("--offline", "--default-registry", docker_registry.address, cache=cache)
    rootfs = mount.path / "cache/verbs/1/rootfs"
    assert (rootfs / "big").read_bytes() == BIG
    assert (rootfs / "etc/small").read_bytes() == SMALL


def test_an_image_that_is_not_there_is_not_prefetched(regfs: Regfs, docker_registry: DockerRegistry) -> None:
    done = regfs("prefetch", f"{docker_registry.address}/cache/verbs:none")
    assert done.returncode == 3
    assert "cache/verbs" in done.stderr


def test_du_tells_each_kind(regfs: Regfs, prefetched: str, cache: Path) -> None:
    kinds = usage(regfs)
    assert {kind: found["files"] for kind, found in kinds.items()} == {
        "blobs": 2, "objects": 1, "layers": 2, "images": 1, "under_way": 0,
    }  # fmt: skip
    assert kinds["objects"]["bytes"] >= len(BIG)
    lines = regfs("cache", "du").stdout.splitlines()
    assert lines[0] == str(cache)
    assert lines[-1].split() == ["total", str(sum(found["bytes"] for found in kinds.values()))]


def test_du_of_no_cache_is_nothing(regfs: Regfs) -> None:
    assert regfs("cache", "du").stdout.splitlines()[-1].split() == ["total", "0"]


def test_prune_goes_down_to_what_is_asked_for(regfs: Regfs, prefetched: str) -> None:
    assert regfs("cache", "prune").returncode == 0
    assert usage(regfs)["layers"]["files"] == 2
    done = regfs("cache", "prune", "--to", "100k")
    assert done.returncode == 0, done.stderr
    assert 0 < sum(found["bytes"] for found in usage(regfs).values()) <= 100 << 10
    assert regfs("cache", "prune", "--all").stdout.endswith("freed, 0 B left\n")
    assert sum(found["bytes"] for found in usage(regfs).values()) == 0


def test_prune_leaves_what_a_mount_uses_and_the_mount_goes_on(
    regfs: Regfs, mount_regfs: MountRegfs, cache: Path, image: BuiltImage, docker_registry: DockerRegistry
) -> None:
    mount = mount_regfs("--default-registry", docker_registry.address, cache=cache)
    rootfs = mount.path / "cache/verbs/1/rootfs"
    assert (rootfs / "above").read_bytes() == b"above"
    done = regfs("cache", "prune", "--all")
    assert "what is in use stays" in done.stdout
    passes = mount.stats()["layers.passes"]
    assert (rootfs / "big").read_bytes() == BIG
    assert (rootfs / "etc/small").read_bytes() == SMALL
    assert mount.stats()["layers.passes"] == passes
    mount.unmount()
    regfs("cache", "prune", "--all")
    assert usage(regfs)["layers"]["files"] == 0


def test_the_layers_of_a_killed_mount_are_nobodys(
    regfs: Regfs, mount_regfs: MountRegfs, cache: Path, image: BuiltImage, docker_registry: DockerRegistry
) -> None:
    mount = mount_regfs("--default-registry", docker_registry.address, cache=cache)
    assert os.listdir(mount.path / "cache/verbs/1/rootfs")
    mount.clean_up()
    regfs("cache", "prune", "--all")
    assert usage(regfs)["layers"]["files"] == 0


def test_verify_of_a_sound_cache_says_so(regfs: Regfs, prefetched: str) -> None:
    done = regfs("cache", "verify")
    assert (done.returncode, done.stdout) == (0, "all is well\n")


@pytest.mark.parametrize(
    "pattern", ["blobs/sha256/*/*", "objects/*/*", "layers/*.pack", "layers/*.index", "images/*.merged"]
)
def test_rot_is_found_and_the_next_mount_is_right(
    regfs: Regfs, prefetched: str, mount_regfs: MountRegfs, cache: Path, docker_registry: DockerRegistry, pattern: str
) -> None:
    for path in cache.glob(pattern):
        if path.stat().st_size:
            flip(path)
    assert regfs("cache", "verify", "--dry-run").returncode == 6
    done = regfs("cache", "verify")
    assert done.returncode == 6
    assert "damaged" in done.stdout
    assert regfs("cache", "verify").returncode == 0
    mount = mount_regfs("--default-registry", docker_registry.address, cache=cache)
    rootfs = mount.path / "cache/verbs/1/rootfs"
    assert sorted(os.listdir(rootfs)) == ["above", "big", "etc"]
    assert (rootfs / "big").read_bytes() == BIG
    assert (rootfs / "etc/small").read_bytes() == SMALL
    assert (rootfs / "above").read_bytes() == b"above"


@pytest.mark.parametrize("damage", ["deleted", "emptied"])
def test_a_file_that_is_gone_under_a_mount_is_fetched_again(
    mount_regfs: MountRegfs, cache: Path, image: BuiltImage, docker_registry: DockerRegistry, damage: str
) -> None:
    mount = mount_regfs("--default-registry", docker_registry.address, cache=cache)
    rootfs = mount.path / "cache/verbs/1/rootfs"
    assert sorted(os.listdir(rootfs)) == ["above", "big", "etc"]
    for path in [*cache.glob("objects/*/*"), *cache.glob("layers/*.pack")]:
        if damage == "deleted":
            path.unlink()
        else:
            os.truncate(path, 0)
    assert (rootfs / "big").read_bytes() == BIG
    assert (rootfs / "etc/small").read_bytes() == SMALL
    assert (rootfs / "above").read_bytes() == b"above"


def test_a_mount_holds_its_limit(
    regfs: Regfs, mount_regfs: MountRegfs, cache: Path, docker_registry: DockerRegistry
) -> None:
    push = Pusher(docker_registry.url)
    for number in range(6):
        push.image("cache/limit", str(number), image_of(layer(file("big", os.urandom(400_000)))))
    mount = mount_regfs("--cache-size", "1M", "--default-registry", docker_registry.address, cache=cache)
    for number in range(6):
        path = mount.path / f"cache/limit/{number}/blobs"
        assert max((path / name).stat().st_size for name in os.listdir(path)) > 400_000
        for name in os.listdir(path):
            assert len((path / name).read_bytes()) == (path / name).stat().st_size
        assert sum(found["bytes"] for found in usage(regfs).values()) <= 1 << 20


def test_an_image_that_is_more_than_the_cache_may_hold_says_so(
    mount_regfs: MountRegfs, image: BuiltImage, docker_registry: DockerRegistry
) -> None:
    mount = mount_regfs("--cache-size", "100k", "--default-registry", docker_registry.address)
    with pytest.raises(OSError):
        os.listdir(mount.path / "cache/verbs/1/rootfs")
    assert json.loads((mount.path / "cache/verbs/1/config.json").read_text())["rootfs"]
    assert "--cache-size" in mount.errors()


@pytest.mark.parametrize(
    "words",
    [("du", "--all"), ("verify", "--to", "1"), ("prune", "--dry-run"), ("prune", "--all", "--to", "1"), ("burn",), ()],
)
def test_words_that_mean_nothing_are_refused(regfs: Regfs, words: tuple[str, ...]) -> None:
    done = regfs("cache", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("regfs: ")
