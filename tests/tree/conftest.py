"""A registry behind a proxy that records, one in memory that can be made to fail, and trees over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cache import assert_cache_is_clean
from tests.support.fault_server import FaultServer
from tests.support.images import BuiltImage
from tests.support.memory_registry import MemoryRegistry
from tests.support.proxy import ReverseProxy
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry
from tests.support.shown import Shown

Show = Callable[..., Shown]


@pytest.fixture(scope="session")
def recorded(docker_registry: DockerRegistry) -> Iterator[ReverseProxy]:
    """A proxy in front of the registry; `seen` is its log."""
    with ReverseProxy(docker_registry.address) as proxy:
        yield proxy


@pytest.fixture
def requests(recorded: ReverseProxy) -> ReverseProxy:
    """The same, with an empty log and no answers of its own."""
    recorded.seen.clear()
    recorded.answer = lambda _seen: None
    return recorded


@pytest.fixture
def pusher(docker_registry: DockerRegistry) -> Pusher:
    """Pushes to the registry, past the proxy."""
    return Pusher(docker_registry.url)


@pytest.fixture
def show(requests: ReverseProxy, tmp_path: Path) -> Iterator[Show]:
    """Return a function that makes trees of the recorded registry, all on one cache."""
    made: list[Shown] = []

    def make(**options: object) -> Shown:
        shown = Shown(tmp_path / "cache", default_registry=requests.address, **options)  # type: ignore[arg-type]
        made.append(shown)
        return shown

    yield make
    for shown in made:
        shown.__exit__(None, None, None)


class Served:
    """A registry in memory behind a server that misbehaves by rule (`server.on`), and trees of it on one cache."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.registry = MemoryRegistry()
        self.server = FaultServer(self.registry)
        self._shown: list[Shown] = []

    def push(self, name: str, tag: str, image: BuiltImage) -> BuiltImage:
        """Put *image* into the registry and let *tag* name it."""
        for content in image.blobs().values():
            self.registry.add_blob(name, content)
        self.document(name, tag, image.manifest, image.media_type)
        return image

    def document(self, name: str, tag: str, content: bytes, media_type: str) -> str:
        """Put any document into the registry, let *tag* name it, and return its digest."""
        return str(self.registry.add_manifest(name, content, tag=tag, media_type=media_type))

    def show(self, **options: object) -> Shown:
        """Return a tree; all of them share one cache."""
        shown = Shown(self.cache, default_registry=self.server.address, **options)  # type: ignore[arg-type]
        self._shown.append(shown)
        return shown

    def close(self) -> None:
        """Take everything down, and look at what is left in the cache."""
        for shown in self._shown:
            shown.__exit__(None, None, None)
        self.server.stop()
        assert_cache_is_clean(self.cache)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry in memory; after the test the cache must be clean."""
    made = Served(tmp_path / "cache")
    yield made
    made.close()
