"""regfs:// paths: what fsspec, pandas and universal_pathlib make of a registry."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from upath import UnsupportedOperation, UPath

from regfs.library.fsspec_filesystem import RegistryFileSystem
from regfs.library.universal_path import RegistryPath
from tests.support.artifacts import TITLE, artifact_of, blob, push_artifact
from tests.support.fault_server import FaultServer, reply
from tests.support.hello import host_architecture
from tests.support.images import directory, file, image_of, layer, symlink
from tests.support.memory_registry import MemoryRegistry

ROOT = "demo/app:1/rootfs"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    application = MemoryRegistry()
    image = image_of(
        layer(directory("etc"), file("etc/a", b"0123456789"), file("etc/b.txt", b"b"), symlink("link", "etc/a"),
              symlink("dead", "none")),
        architecture=host_architecture(),
    )  # fmt: skip
    for content in image.blobs().values():
        application.add_blob("demo/app", content)
    application.add_manifest("demo/app", image.manifest, tag="1", media_type=image.media_type)
    table = blob(b"x,y\n1,2\n", "text/csv", {TITLE: "data.csv"})
    push_artifact(application, "demo/data", "v1", artifact_of(table, kind="application/vnd.example"))
    with FaultServer(application) as served:
        yield served


@pytest.fixture(scope="module")
def options(server: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "default_registry": server.address, "cache_dir": str(tmp_path_factory.mktemp("cache")), "environment": {},
        "skip_instance_cache": True,
    }  # fmt: skip


@pytest.fixture(scope="module")
def files(options: dict[str, Any]) -> Iterator[RegistryFileSystem]:
    made = RegistryFileSystem(**options)
    yield made
    made.close()


def test_fsspec_knows_the_protocol(options: dict[str, Any]) -> None:
    assert fsspec.get_filesystem_class("regfs") is RegistryFileSystem
    with fsspec.open(f"regfs://{ROOT}/etc/a", "rt", **options) as opened:
        assert opened.read() == "0123456789"


def test_directories_are_listed_found_and_walked(files: RegistryFileSystem) -> None:
    assert files.ls(f"{ROOT}/etc", detail=False) == [f"{ROOT}/etc/a", f"{ROOT}/etc/b.txt"]
    assert files.ls(f"{ROOT}/etc/a", detail=False) == [f"{ROOT}/etc/a"]
    assert files.glob(f"{ROOT}/**/*.txt") == [f"{ROOT}/etc/b.txt"]
    assert files.find(f"{ROOT}/etc") == [f"{ROOT}/etc/a", f"{ROOT}/etc/b.txt"]
    assert files.isdir(f"{ROOT}/etc")
    assert files.isfile(f"{ROOT}/link")
    assert not files.exists(f"{ROOT}/none")


def test_links_have_the_type_of_what_they_lead_to(files: RegistryFileSystem) -> None:
    found = files.info(f"{ROOT}/link")
    assert (found["type"], found["size"], found["islink"], found["destination"]) == ("file", 10, True, "etc/a")
    dead = files.info(f"{ROOT}/dead")
    assert (dead["type"], dead["islink"], dead["destination"]) == ("other", True, "none")


def test_parts_of_files_are_read(files: RegistryFileSystem) -> None:
    path = f"{ROOT}/etc/a"
    assert files.cat_file(path, 2, 5) == b"234"
    assert files.cat_file(path, -3) == b"789"
    assert files.cat_file(path, 0, -8) == b"01"
    assert files.cat_file(path, 8, 100) == b"89"
    assert files.cat([path, f"{ROOT}/etc/b.txt"]) == {path: b"0123456789", f"{ROOT}/etc/b.txt": b"b"}
    assert files.head(path, 3) == b"012"
    with files.open(path) as opened:
        opened.seek(5)
        assert opened.read(2) == b"56"
    assert files.ukey(path) == files.ukey(f"regfs://{path}")
    assert files.modified(path).year == 2020


def test_what_is_missing_is_told_and_what_fails_is_an_error(files: RegistryFileSystem, server: FaultServer) -> None:
    with pytest.raises(FileNotFoundError):
        files.info(f"{ROOT}/none")
    with pytest.raises(FileNotFoundError):
        files.open(f"{ROOT}/none")
    server.on("*", "/v2/demo/private/", reply(403))
    with pytest.raises(PermissionError):
        files.exists(f"{server.address}/demo/private:1/rootfs")


@pytest.mark.parametrize(
    "write",
    [
        lambda files: files.open(f"{ROOT}/new", "wb"),
        lambda files: files.mkdir(f"{ROOT}/new"),
        lambda files: files.makedirs(f"{ROOT}/new"),
        lambda files: files.rm(f"{ROOT}/etc/a"),
        lambda files: files.rmdir(f"{ROOT}/etc"),
        lambda files: files.cp_file(f"{ROOT}/etc/a", f"{ROOT}/new"),
    ],
)
def test_nothing_is_written(files: RegistryFileSystem, write: object) -> None:
    with pytest.raises(OSError) as caught:
        write(files)  # type: ignore[operator]
    assert caught.value.errno == errno.EROFS
    files.makedirs(f"{ROOT}/etc", exist_ok=True)


def test_paths_of_universal_pathlib_read_an_image(options: dict[str, Any]) -> None:
    root = UPath(f"regfs://{ROOT}", **options)
    assert (root / "etc" / "a").read_text() == "0123456789"
    assert sorted(path.name for path in (root / "etc").iterdir()) == ["a", "b.txt"]
    assert (root / "etc").is_dir()
    assert not (root / "none").exists()


def test_paths_of_universal_pathlib_have_their_parts_and_links(options: dict[str, Any]) -> None:
    """Without a class of their own their last part had lost its first letter, and iterdir() with it."""
    path = UPath(f"regfs://{ROOT}/etc/b.txt", **options)
    assert isinstance(path, RegistryPath)
    assert path.parts == ("demo", "app:1", "rootfs", "etc", "b.txt")
    assert [each.path for each in path.parents] == [f"{ROOT}/etc", ROOT, "demo/app:1", "demo", ""]
    root = path.parent.parent
    assert [each.path for each in root.glob("**/*.txt")] == [f"{ROOT}/etc/b.txt"]
    assert (root / "link").is_symlink()
    assert (root / "link").readlink().read_text() == "0123456789"
    assert not path.is_symlink()
    assert not (root / "none").is_symlink()
    with pytest.raises(OSError, match="Invalid argument"):
        path.readlink()


@pytest.mark.parametrize("write", ["mkdir", "touch", "unlink"])
def test_paths_of_universal_pathlib_write_nothing(options: dict[str, Any], write: str) -> None:
    with pytest.raises(UnsupportedOperation, match="is shown and not written"):
        getattr(UPath(f"regfs://{ROOT}/new", **options), write)()
    with pytest.raises(UnsupportedOperation):
        UPath(f"regfs://{ROOT}/new", **options).write_text("x")


def test_the_files_of_an_artifact_are_data(files: RegistryFileSystem) -> None:
    assert files.cat("demo/data:v1/files/data.csv") == b"x,y\n1,2\n"
