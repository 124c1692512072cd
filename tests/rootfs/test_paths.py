"""Paths within a tree: found as chroot finds them, and never out of the root."""

from __future__ import annotations

import pytest

from regfs.errors import NotADirectory, NotFound
from regfs.model.names import RepositoryName
from regfs.rootfs.file_tree import FileTree
from regfs.rootfs.paths import files_below, find
from tests.support.images import directory, file, hardlink, image_of, layer, symlink
from tests.support.served import Served

ENTRIES = (
    directory("usr"),
    directory("usr/bin"),
    file("usr/bin/python3.11", b"elf"),
    symlink("usr/bin/python3", "python3.11"),
    symlink("bin", "usr/bin"),
    symlink("absolute", "/usr/bin/python3"),
    symlink("out", "../../../usr/../bin/python3"),
    symlink("loop", "loop"),
    symlink("away", "nowhere"),
    hardlink("same", "usr/bin/python3.11"),
)


@pytest.fixture
def tree(served: Served) -> FileTree:
    served.push("app", "1", image_of(layer(*ENTRIES)))
    shown = served.show()
    repository = shown.repositories.repository(RepositoryName(served.server.address, "app"))
    return shown.images.image(repository, repository.tags.resolve("1").digest).rootfs()


@pytest.mark.parametrize(
    "path",
    [b"/usr/bin/python3.11", b"usr//bin/./python3", b"/bin/python3", b"absolute", b"/../out", b"bin/../bin/python3.11"],
)
def test_a_path_is_found_through_links_within_the_root(tree: FileTree, path: bytes) -> None:
    assert find(tree, path) == find(tree, b"usr/bin/python3.11")


def test_the_root_is_found_by_each_of_its_names(tree: FileTree) -> None:
    assert {find(tree, path) for path in (b"", b"/", b".", b"/..", b"usr/..")} == {tree.root}


@pytest.mark.parametrize("path", [b"nothing", b"usr/nothing", b"loop", b"away", b"loop/x"])
def test_what_is_not_there_is_not_found(tree: FileTree, path: bytes) -> None:
    with pytest.raises(NotFound):
        find(tree, path)


def test_nothing_is_below_a_file(tree: FileTree) -> None:
    with pytest.raises(NotADirectory):
        find(tree, b"usr/bin/python3.11/x")


def test_the_files_below_are_regular_ones_and_links_are_not_followed(tree: FileTree) -> None:
    python = find(tree, b"usr/bin/python3.11")
    assert list(files_below(tree, find(tree, b"usr"))) == [python]
    assert list(files_below(tree, python)) == [python]
    assert set(files_below(tree, tree.root)) == {python}
