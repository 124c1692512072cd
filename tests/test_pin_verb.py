"""`regfs pin`, `unpin` and `pins`: images that stay in the cache whatever its limit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.cli.main import run as run_regfs
from regfs.errors import InUse, NotFound, RegistryUnavailable, TooLarge
from regfs.model.digest import Digest
from regfs.store.eviction import pins
from regfs.store.eviction.eviction import evict
from regfs.store.eviction.in_use import LivingUses
from tests.support.fault_server import FaultServer
from tests.support.hello import host_architecture
from tests.support.images import file, image_of, layer
from tests.support.memory_registry import MemoryRegistry

Regfs = Callable[..., str]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """demo/kept:1 and demo/other:1 share their base layer."""
    application = MemoryRegistry()
    base = layer(file("base", os.urandom(100_000)))
    for name in ("kept", "other"):
        image = image_of(base, layer(file(name, name.encode() * 1000)), architecture=host_architecture())
        for content in image.blobs().values():
            application.add_blob(f"demo/{name}", content)
        application.add_manifest(f"demo/{name}", image.manifest, tag="1", media_type=image.media_type)
    with FaultServer(application) as served:
        yield served


@pytest.fixture
def regfs(server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Regfs:
    def run(*words: str) -> str:
        verb = words[: 2 if words[0] == "cache" else 1]
        options = ["--default-registry", server.address, "--cache-dir", str(tmp_path / "cache")]
        own = [*options[2:]] if words[0] in ("cache", "pins") else options
        environment = {"HOME": str(tmp_path), "REGFS_CONFIG": "", "PATH": os.environ["PATH"]}
        environment["REGFS_DEFAULT_REGISTRY"] = server.address
        assert run_regfs([*verb, *own, *words[len(verb) :]], environment) == 0
        return capsys.readouterr().out

    return run


def test_a_pinned_image_is_read_without_its_registry_after_everything_else_went(
    regfs: Regfs, server: FaultServer, tmp_path: Path
) -> None:
    name = regfs("pin", "-q", "demo/kept:1").strip()
    assert name.startswith(f"{server.address}/demo/kept:1@sha256:")
    regfs("ls", "-q", "demo/other:1")
    evict(tmp_path / "cache", keep=0)
    before = len(server.seen)
    assert regfs("cat", "--offline", "-q", "demo/kept:1:/kept") == "kept" * 1000
    with pytest.raises(RegistryUnavailable):
        regfs("cat", "--offline", "-q", "demo/other:1:/other")
    assert len(server.seen) == before
    assert json.loads(regfs("pins", "--json"))["pins"] == [{"name": name, "digest": name.partition("@")[2]}]


def test_an_image_that_is_unpinned_can_go(regfs: Regfs, tmp_path: Path) -> None:
    name = regfs("pin", "-q", "demo/kept:1").strip()
    with pytest.raises(InUse, match=r"pinned images stay: .*regfs unpin IMAGE"):
        regfs("cache", "rm", "demo/kept:1")
    assert regfs("unpin", "demo/kept:1").strip() == name
    assert regfs("pins") == ""
    regfs("cache", "rm", "demo/kept:1")
    assert not list((tmp_path / "cache/layers").glob("*.index"))
    with pytest.raises(NotFound):
        regfs("unpin", "demo/kept:1")


def test_what_is_not_pinned_is_named(regfs: Regfs) -> None:
    regfs("ls", "-q", "demo/other:1")
    with pytest.raises(NotFound, match="demo/other:1 is not pinned; regfs pins shows what is"):
        regfs("unpin", "demo/other:1")


def test_an_eviction_under_way_sees_a_pin_that_is_made_meanwhile(tmp_path: Path) -> None:
    table = tmp_path / "images/chain.merged"
    table.parent.mkdir()
    table.touch()
    uses, digest = LivingUses(tmp_path), Digest.of(b"manifest")
    for is_pinned in (False, True, False):
        if is_pinned:
            pins.keep_pin(tmp_path, digest, "demo/app:1", [table])
        else:
            pins.drop_pin(tmp_path, digest)
        with uses.claimed(table) as is_ours:
            assert is_ours is not is_pinned


def test_pins_are_bounded_and_odd_files_among_them_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "MOST", 2)
    pins.keep_pin(tmp_path, Digest.of(b"a"), "a", [])
    (tmp_path / "pins/empty").touch()
    assert [pin.name for pin in pins.pins(tmp_path)] == ["a"]
    with pytest.raises(TooLarge, match="regfs unpin IMAGE"):
        pins.keep_pin(tmp_path, Digest.of(b"b"), "b", [])
    assert sorted(os.listdir(tmp_path / "pins")) == ["empty", f"sha256-{Digest.of(b'a').encoded}"]
