"""What must hold of a cache directory after whatever went wrong."""

from __future__ import annotations

import os
from pathlib import Path

from regfs.model.digest import Digest
from regfs.store.locks.work_locks import LOCKS, WorkLocks


def assert_cache_is_clean(cache: Path) -> None:
    """Assert that every blob and copy of a file is what its name says, and that nothing half-made is left."""
    half_made = [path for path in files_in(cache) if path.name.startswith(".") or path.suffix in {".new", ".part"}]
    assert half_made == []
    for path in files_in(cache / "blobs"):
        assert Digest(path.parent.parent.name, path.name).matches(path.read_bytes()), path
    for path in files_in(cache / "objects"):
        offset, size = map(int, path.name.split("-"))
        data = (cache / "layers" / f"{path.parent.name}.tar").read_bytes()
        assert path.read_bytes() == data[offset : offset + size], path
    assert files_in(cache / "ingests") == []
    WorkLocks(cache / LOCKS).sweep()  # a daemon that ends while it ingests a layer leaves its lock's file
    assert files_in(cache / LOCKS) == []


def blobs_in(cache: Path) -> set[str]:
    """Return the digests of the blobs that the cache holds."""
    return {f"{path.parent.parent.name}:{path.name}" for path in files_in(cache / "blobs")}


def files_in(directory: Path) -> list[Path]:
    """Return the files below *directory*; what vanishes meanwhile, because a daemon is at work, is passed over."""
    found = (Path(where, name) for where, _directories, names in os.walk(directory) for name in names)
    return [path for path in found if path.is_file()]
