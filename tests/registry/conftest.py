"""What the tests of the registry client share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.user_with_logins import User
from tests.support.client_rig import Rig


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Servers and clients for one test, in an environment without proxies."""
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    made = Rig(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def user(tmp_path: Path) -> User:
    """A user without any login."""
    return User(tmp_path)
