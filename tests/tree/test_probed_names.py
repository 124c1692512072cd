"""Names that shells, git, editors and file managers try everywhere: missing, without a request."""

from __future__ import annotations

import pytest

from regfs.errors import InvalidName, NotFound
from regfs.tree.probed_names import is_probed
from tests.support.images import file, image_of, layer
from tests.support.served import Served

IMAGE = image_of(layer(file("a", b"a")))
PROBED = [
    "HEAD", ".git", "README.md", "readme.md", "README", "Makefile", "makefile", "GNUmakefile", "package.json",
    "autorun.inf", ".Trash-0", ".Trash", "desktop.ini", ".hidden", "node_modules", "pyproject.toml", "CVS", ".svn",
    "lost+found", "LICENSE", "Cargo.toml", "go.mod", "setup.py", "main.rs", "Gemfile", ".DS_Store", "Thumbs.db",
    "RCS", "DCIM", "docker-compose.yml", "CHANGELOG.md", "build.sh", ".envrc", "favicon.png", "WORKSPACE", "v.mod",
]  # fmt: skip


@pytest.mark.parametrize("name", PROBED)
@pytest.mark.parametrize("place", ["", "registry"])
def test_a_name_that_programs_try_does_not_exist_and_asks_nothing(served: Served, place: str, name: str) -> None:
    shown = served.show()
    with pytest.raises((NotFound, InvalidName)):
        shown.find(f"{served.server.address}/{name}" if place else name)
    assert served.server.seen == []
    assert shown.stats.value("errors") == 0


@pytest.mark.parametrize(
    "name", ["ghcr.io", "quay.io", "registry.md", "docker.sh", "my.app", "mcr.microsoft.com", "registry.k8s.io",
             "readme.io", "README.md:5000", "lscr.io", "k3s", "redis"]
)  # fmt: skip
def test_a_host_or_a_repository_is_no_such_name(name: str) -> None:
    assert not is_probed(name)


def test_a_repository_of_such_a_name_opens_once_it_is_known(served: Served) -> None:
    served.push("node_modules", "1", IMAGE)
    shown = served.show()
    assert "node_modules" in shown.names()
    assert shown.read("node_modules/1/rootfs/a") == b"a"


def test_deeper_such_names_are_repositories_like_others(served: Served) -> None:
    served.push("org/node_modules", "1", IMAGE)
    assert served.show().read("org/node_modules/1/rootfs/a") == b"a"
