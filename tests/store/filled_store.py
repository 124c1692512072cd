"""What the tests of the cache's limit put into a cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regfs.model.digest import Digest
from regfs.model.verification import VerifiedChunks, verified
from regfs.store.images.merged_table import MergedTableWriter
from regfs.store.layers.layer_store import LayerStore
from tests.support.caches import MIB
from tests.support.mounted import REPOSITORY_ROOT

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a tmpfs")


def whole(content: bytes) -> VerifiedChunks:
    return verified([content], Digest.of(content), len(content))


def big(fill: int, size: int = MIB) -> bytes:
    return bytes([fill]) + b"x" * (size - 1)


def kept_merged(root: Path, name: str = "chain") -> Path:
    path = root / "images" / f"{name}.merged"
    writer = MergedTableWriter(path)
    writer.finish(0, b"a" * 80)
    writer.abandon()
    return path


def run_python(code: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY_ROOT,
    )  # fmt: skip


def names_of(store: LayerStore, layers: list[Digest]) -> list[int]:
    return [number for number, layer in enumerate(layers) if store.is_ingested(layer)]
