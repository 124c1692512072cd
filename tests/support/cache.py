"""What must hold of a cache directory after whatever went wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path


def assert_cache_is_clean(cache: Path) -> None:
    """Assert that every blob and object is what its name says, and that nothing half-made is left."""
    for path in _files(cache / "blobs"):
        assert hashlib.new(path.parent.parent.name, path.read_bytes()).hexdigest() == path.name, path
    for path in _files(cache / "objects"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, path
    assert _files(cache / "passes") == []
    half_made = [path for path in _files(cache) if path.name.startswith(".") or path.suffix in {".new", ".part"}]
    assert half_made == []


def blobs_in(cache: Path) -> set[str]:
    """Return the digests of the blobs that the cache holds."""
    return {f"{path.parent.parent.name}:{path.name}" for path in _files(cache / "blobs")}


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]
