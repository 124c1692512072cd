"""A registry in memory that can be made to fail, and the rooms below the tree over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.images.repository import Repositories, Repository
from regfs.model.names import RepositoryName
from tests.support.served import Served


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry in memory; after the test the cache must be clean."""
    made = Served(tmp_path / "cache")
    yield made
    made.close()


@pytest.fixture
def repositories(served: Served) -> Repositories:
    """The repositories of the registry, remembered for no time at all."""
    return served.show(tag_ttl_s=0.0).repositories


@pytest.fixture
def app(served: Served, repositories: Repositories) -> Repository:
    """The repository `app`."""
    return repositories.repository(RepositoryName(served.server.address, "app"))
