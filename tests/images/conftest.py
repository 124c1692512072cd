"""The packages below the tree, over a registry in memory that can be made to fail."""

from __future__ import annotations

import pytest

from regfs.images.repositories import Repositories
from regfs.images.repository import Repository
from regfs.model.names import RepositoryName
from tests.support.served import Served


@pytest.fixture
def repositories(served: Served) -> Repositories:
    """The repositories of the registry, remembered for no time at all."""
    return served.show(tag_ttl_s=0.0).repositories


@pytest.fixture
def app(served: Served, repositories: Repositories) -> Repository:
    """The repository `app`."""
    return repositories.repository(RepositoryName(served.server.address, "app"))
