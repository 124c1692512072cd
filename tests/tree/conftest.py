"""A registry behind a proxy that records, and trees over it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
    for thread in threading.enumerate():
        if thread.name.startswith("flight "):
            thread.join(60)  # what it still asks is not for the next test to count
    for shown in made:
        shown.__exit__(None, None, None)
