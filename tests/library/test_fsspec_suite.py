"""fsspec's own tests of file systems, those that need no writing, on an image that has the files of their scenarios."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import md5

import pytest
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

from regfs.library.fsspec_filesystem import RegistryFileSystem
from tests.support.fault_server import FaultServer
from tests.support.hello import host_architecture
from tests.support.images import TarEntry, directory, file, image_of, layer
from tests.support.memory_registry import MemoryRegistry

ROOT = "demo/app:1/rootfs"


def _tree(top: str, *paths: str) -> Iterator[TarEntry]:
    """Yield empty files *paths* and the directories that they are in, below *top*/source."""
    made: set[str] = set()
    for path in paths:
        parts = f"{top}/source/{path}".split("/")
        for depth in range(1, len(parts)):
            if (above := "/".join(parts[:depth])) not in made:
                made.add(above)
                yield directory(above)
        yield file("/".join(parts))


_BELOW = ("subfile1", "subfile2", "nesteddir/nestedfile")
_HASHED = [f"{md5(str(number).encode(), usedforsecurity=False).hexdigest()}.txt" for number in range(10)]


@pytest.fixture(scope="module")
def registry_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryFileSystem]:
    application = MemoryRegistry()
    image = image_of(
        layer(
            *_tree("bulk", "file1", "file2", *(f"subdir/{name}" for name in _BELOW)),
            *_tree("glob", "file1", "file2", *(f"subdir{number}/{name}" for number in (0, 1) for name in _BELOW)),
            *_tree("prefix", "subdir.txt", "subdir/subfile.txt"),
            directory("hashed"), directory("hashed/source"),
            *(file(f"hashed/source/{name}", str(number).encode()) for number, name in enumerate(_HASHED)),
        ),
        architecture=host_architecture(),
    )  # fmt: skip
    for content in image.blobs().values():
        application.add_blob("demo/app", content)
    application.add_manifest("demo/app", image.manifest, tag="1", media_type=image.media_type)
    with FaultServer(application) as server:
        made = RegistryFileSystem(
            default_registry=server.address, cache_dir=str(tmp_path_factory.mktemp("cache")), environment={},
            skip_instance_cache=True,
        )  # fmt: skip
        yield made
        made.close()


class Fixtures(AbstractFixtures):  # type: ignore[misc]
    """What the suite would write into the file system is in the image already."""

    @pytest.fixture
    def fs(self, registry_files: RegistryFileSystem) -> RegistryFileSystem:
        return registry_files

    @pytest.fixture
    def fs_path(self) -> str:
        return ROOT

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def local_path(self, tmp_path: os.PathLike[str]) -> str:
        return os.fspath(tmp_path)

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self) -> str:
        return f"{ROOT}/bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self) -> str:
        return f"{ROOT}/glob/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self) -> str:
        return f"{ROOT}/prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self) -> str:
        return f"{ROOT}/hashed/source"


class TestGet(Fixtures, AbstractGetTests):  # type: ignore[misc]
    """fs.get() of files, directories, patterns and lists."""

    test_get_directory_recursive = None  # it makes its own files; directories are copied whole in the others too
