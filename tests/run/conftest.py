"""A registry with images that have programs, and `regfs run` of them in each way that it works in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.run.runner import Runner, images, may_unshare, runner_of
from tests.support.fault_server import FaultServer
from tests.support.memory_registry import MemoryRegistry


@pytest.fixture(scope="session")
def server(needs_fuse: None) -> Iterator[FaultServer]:
    """A registry with the images below demo/."""
    application = MemoryRegistry()
    for name, image in images().items():
        for content in image.blobs().values():
            application.add_blob(f"demo/{name}", content)
        application.add_manifest(f"demo/{name}", image.manifest, tag="latest", media_type=image.media_type)
    with FaultServer(application) as served:
        yield served


@pytest.fixture(scope="session", params=["root", "an ordinary user"])
def runner(request: pytest.FixtureRequest, server: FaultServer, ordinary_user: int | None) -> Iterator[Runner]:
    """`regfs run` in each way that it works in."""
    if request.param == "an ordinary user":
        yield request.getfixturevalue("user")
        return
    if os.geteuid() != 0:
        pytest.skip("root only")
    with runner_of(server, None) as made:
        yield made


@pytest.fixture(scope="session")
def user(server: FaultServer, ordinary_user: int | None) -> Iterator[Runner]:
    """`regfs run` as an ordinary user."""
    with runner_of(server, ordinary_user) as made:
        if not may_unshare(made):
            missing("this system forbids user namespaces")
        yield made


@pytest.fixture
def root(server: FaultServer) -> Iterator[Runner]:
    """`regfs run` as root, for one test alone."""
    if os.geteuid() != 0:
        pytest.skip("root only")
    with runner_of(server, None) as made:
        yield made
