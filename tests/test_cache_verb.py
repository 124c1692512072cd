"""`regfs cache du|ls|rm|prune|verify`, as a user runs them, beside mounts that use the same cache."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regfs.errors import NotFound
from regfs.images.cached_images import CachedImage
from regfs.model.digest import Digest
from regfs.model.units import in_units
from regfs.verbs.cache import images_named
from tests.conftest import MountRegfs
from tests.support.caches import size_of
from tests.support.hello import host_architecture
from tests.support.images import BuiltImage, directory, file, image_of, index_of, layer
from tests.support.mounted import run_regfs
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
        return run_regfs(*words, "--cache-dir", cache, home=tmp_path)

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
        "blobs": 2, "objects": 0, "layers": 2, "images": 1, "under_way": 0,
    }  # fmt: skip
    assert kinds["layers"]["bytes"] >= len(BIG)


def test_du_tells_limit_room_and_images_in_units_for_people_and_exactly_for_programs(
    regfs: Regfs, prefetched: str, cache: Path
) -> None:
    told = json.loads(regfs("cache", "du", "--json", "--cache-size", "100M").stdout)
    assert (told["path"], told["exists"], told["images"]) == (str(cache), True, 1)
    assert told["bytes"] == sum(found["bytes"] for found in told["kinds"].values())
    assert (told["limit_bytes"], told["free_bytes"]) == (100 << 20, (100 << 20) - told["bytes"])
    first, *lines = regfs("cache", "du", "--cache-size", "100M").stdout.splitlines()
    assert first == str(cache)
    rows = {line.split()[0]: line for line in lines}
    assert rows["total"].split()[1:] == in_units(told["bytes"]).split()
    assert rows["limit"].split()[1:] == ["100", "MiB"]
    assert rows["images"].split() == ["images", "1", "(list", "them:", "regfs", "cache", "ls)"]


@pytest.mark.parametrize("words", [("du",), ("ls",), ("prune",), ("verify",)])
def test_a_cache_directory_that_is_not_there_is_told(regfs: Regfs, cache: Path, words: tuple[str, ...]) -> None:
    done = regfs("cache", *words)
    assert (done.returncode, done.stderr) == (
        0,
        f"regfs: there is no cache at {cache} yet; --cache-dir names another\n",
    )
    assert not cache.exists()


def listed(regfs: Regfs) -> dict[str, dict[str, Any]]:
    """Return what `cache ls` tells of each image, by its first name."""
    return {each["names"][0]: each for each in json.loads(regfs("cache", "ls", "--json").stdout)}


@pytest.fixture(scope="module")
def pair(docker_registry: DockerRegistry) -> dict[str, BuiltImage]:
    """Two images that share their base, by name."""
    push = Pusher(docker_registry.url)
    base = layer(file("base", os.urandom(500_000)))
    built = [image_of(base, layer(file("own", os.urandom(300_000)))) for _ in range(2)]
    images = [push.image("cache/pair", str(number), image) for number, image in enumerate(built)]
    return {f"{docker_registry.address}/cache/pair:{number}": image for number, image in enumerate(images)}


def test_ls_tells_names_sizes_layers_and_what_each_image_has_alone(regfs: Regfs, pair: dict[str, BuiltImage]) -> None:
    before_ns = time.time_ns()
    assert regfs("prefetch", *pair).returncode == 0
    found = listed(regfs)
    assert set(found) == set(pair)
    for name, image in pair.items():
        told = found[name]
        assert (told["digest"], told["layers"], told["layers_here"]) == (str(image.digest), 2, 2)
        assert told["platform"] == "linux/amd64"
        assert 800_000 < told["bytes"] < 1_000_000
        assert 300_000 < told["unique_bytes"] < 450_000
        assert before_ns / 10**9 - 1 < told["used"] <= time.time() + 1
    text = regfs("cache", "ls").stdout.splitlines()
    assert text[0].split() == ["DIGEST", "SIZE", "UNIQUE", "LAYERS", "USED", "IMAGE"]
    assert {line.split()[0]: line.rpartition("  ")[2] for line in text[1:]} == {
        image.digest.encoded[:12]: name for name, image in pair.items()
    }


def test_ls_does_not_count_as_a_use(regfs: Regfs, prefetched: str, cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*/*") if path.is_file()}
    assert len(listed(regfs)) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_ls_tells_an_image_by_its_tags_through_an_index_and_by_digest_without_one(
    regfs: Regfs, docker_registry: DockerRegistry, pair: dict[str, BuiltImage]
) -> None:
    push = Pusher(docker_registry.url)
    first, second = pair.values()
    here = {"os": "linux", "architecture": host_architecture()}
    index = index_of(first.descriptor(platform=here))
    push.manifest("cache/pair", "multi", index, "application/vnd.oci.image.index.v1+json")
    repository = f"{docker_registry.address}/cache/pair"
    assert regfs("prefetch", f"{repository}:multi", f"{repository}@{second.digest}").returncode == 0
    assert {each["digest"]: each["names"] for each in json.loads(regfs("cache", "ls", "--json").stdout)} == {
        str(first.digest): [f"{repository}:multi"],
        str(second.digest): [f"{repository}@{second.digest}"],
    }


def test_ls_tells_what_belongs_to_no_image_that_it_knows(
    regfs: Regfs, pair: dict[str, BuiltImage], cache: Path
) -> None:
    assert regfs("prefetch", *pair).returncode == 0
    assert "belong to no image" not in regfs("cache", "ls").stdout
    (cache / "layers/0123.index").write_bytes(bytes(3 << 20))
    assert regfs("cache", "ls").stdout.splitlines()[-1].startswith("3.0 MiB more belong to no image")


def test_ls_tells_how_many_layers_are_left_of_an_evicted_image(regfs: Regfs, prefetched: str, cache: Path) -> None:
    for path in cache.glob("images/*"):
        path.unlink()
    for path in sorted(cache.glob("layers/*.index"))[:1]:
        path.unlink()
    (told,) = listed(regfs).values()
    assert (told["layers"], told["layers_here"]) == (2, 1)


def test_rm_evicts_what_only_that_image_needs(
    regfs: Regfs, pair: dict[str, BuiltImage], mount_regfs: MountRegfs, cache: Path
) -> None:
    (gone, image), (stays, _) = pair.items()
    assert regfs("prefetch", *pair).returncode == 0
    unique = listed(regfs)[gone]["unique_bytes"]
    would = regfs("cache", "rm", "--dry-run", gone)
    assert (would.returncode, would.stdout) == (0, f"{gone}: {in_units(unique)} would be freed\n")
    assert set(listed(regfs)) == set(pair)
    done = regfs("cache", "rm", image.digest.encoded[:12])
    digits = image.digest.encoded[:12]
    told = f"{digits}: {in_units(unique)} freed, and the same image by its other name is gone: {gone}\n"
    assert (done.returncode, done.stdout) == (0, told)
    assert set(listed(regfs)) == {stays}
    registry, _, name = stays.partition("/")
    mount = mount_regfs("--offline", "--default-registry", registry, cache=cache)
    assert sorted(os.listdir(mount.path / name.replace(":", "/") / "rootfs")) == ["base", "own"]
    assert regfs("cache", "verify").returncode == 0


def test_an_image_is_meant_by_its_name_or_by_a_digest_that_leads_to_it() -> None:
    def cached(name: str, manifest: Digest, index: Digest) -> CachedImage:
        return CachedImage(manifest, (name,), frozenset({manifest, index}), "", "", 1, 1, 0, 0, 0, frozenset())

    digests = [Digest.of(bytes([number])) for number in range(4)]
    images = [cached("docker.io/library/debian:12", *digests[:2]), cached("ghcr.io/owner/app:v1", *digests[2:])]
    for text, found in {
        "debian:12": 0,
        "ghcr.io/owner/app:v1": 1,
        str(digests[0]): 0,
        str(digests[3]): 1,
        digests[3].encoded[:12]: 1,
        f"debian@{digests[1]}": 0,
    }.items():
        assert images_named(text, images, "docker.io") == [images[found]]
    for text in ("debian", "owner/app:v1", digests[0].encoded[:11], str(Digest.of(b"none"))):
        with pytest.raises(NotFound):
            images_named(text, images, "docker.io")


def test_rm_takes_a_path_in_a_mount_and_tells_what_that_mount_still_uses(
    regfs: Regfs, image: BuiltImage, mount_regfs: MountRegfs, cache: Path, docker_registry: DockerRegistry
) -> None:
    mount = mount_regfs("--default-registry", docker_registry.address, cache=cache)
    with (mount.path / "cache/verbs/1/rootfs/etc/small").open("rb") as opened:
        done = regfs("cache", "rm", str(mount.path / "cache/verbs/1"))
        assert (done.returncode, "in use by a mount (regfs umount)" in done.stdout) == (1, True)
        assert opened.read() == SMALL
        assert len(listed(regfs)) == 1  # what is left has kept its name
    assert (mount.path / "cache/verbs/1/rootfs/big").read_bytes() == BIG


def test_rm_of_what_is_not_here_removes_nothing(regfs: Regfs, prefetched: str) -> None:
    before = usage(regfs)
    done = regfs("cache", "rm", prefetched, "debian:12")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "regfs: debian:12 is not in the cache; regfs cache ls shows what is\n"
    assert usage(regfs) == before


def test_prune_tells_what_would_go_and_leaves_it(regfs: Regfs, prefetched: str, cache: Path) -> None:
    before = json.loads(regfs("cache", "du", "--json").stdout)
    *lines, last = regfs("cache", "prune", "--all", "--dry-run").stdout.splitlines()
    assert last == f"{in_units(before['bytes'])} would be freed, 0 B would be left"
    assert {cache / line.split()[-1] for line in lines} == {
        *cache.glob("blobs/*/*/*"), *cache.glob("layers/*.index"), *cache.glob("layers/*.tar"),
        *cache.glob("images/*.merged"),
    }  # fmt: skip
    assert json.loads(regfs("cache", "du", "--json").stdout) == before
    assert regfs("cache", "prune", "--all").stdout == f"{in_units(before['bytes'])} freed, 0 B left\n"


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
    ingests = mount.stats()["layers.ingests"]
    assert (rootfs / "big").read_bytes() == BIG
    assert (rootfs / "etc/small").read_bytes() == SMALL
    assert mount.stats()["layers.ingests"] == ingests
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


@pytest.mark.parametrize("pattern", ["blobs/sha256/*/*", "layers/*.tar", "layers/*.index", "images/*.merged"])
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
    for path in cache.glob("layers/*.tar"):
        if damage == "deleted":
            path.unlink()
        else:
            os.truncate(path, 0)
    assert (rootfs / "big").read_bytes() == BIG
    assert (rootfs / "etc/small").read_bytes() == SMALL
    assert (rootfs / "above").read_bytes() == b"above"


def test_a_mount_holds_its_limit(mount_regfs: MountRegfs, cache: Path, docker_registry: DockerRegistry) -> None:
    push = Pusher(docker_registry.url)
    for number in range(6):
        push.image("cache/limit", str(number), image_of(layer(file("big", os.urandom(400_000)))))
    mount = mount_regfs("--cache-size", "1M", "--default-registry", docker_registry.address, cache=cache)
    for number in range(6):
        path = mount.path / f"cache/limit/{number}/blobs"
        assert max((path / name).stat().st_size for name in os.listdir(path)) > 400_000
        for name in os.listdir(path):
            assert len((path / name).read_bytes()) == (path / name).stat().st_size
        assert size_of(cache) <= 1 << 20


def test_an_image_that_is_more_than_the_cache_may_hold_is_listed_and_says_so(
    mount_regfs: MountRegfs, image: BuiltImage, docker_registry: DockerRegistry
) -> None:
    mount = mount_regfs("--cache-size", "100k", "--default-registry", docker_registry.address)
    assert os.listdir(mount.path / "cache/verbs/1/rootfs")
    assert json.loads((mount.path / "cache/verbs/1/config.json").read_text())["rootfs"]
    assert "--cache-size" in mount.errors()


@pytest.mark.parametrize(
    "words",
    [
        ("du", "--all"),
        ("verify", "--to", "1"),
        ("prune", "--all", "--to", "1"),
        ("burn",),
        (),
        ("du", "image"),
        ("ls", "--dry-run"),
        ("rm",),
        ("prune", "--to", "10"),
    ],
)
def test_words_that_mean_nothing_are_refused(regfs: Regfs, words: tuple[str, ...]) -> None:
    done = regfs("cache", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("regfs: ")
