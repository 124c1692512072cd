"""The checksums of indexes and merged tables, made when they were written.

    layers/<diff id>.sums  images/<chain id>.sums        lines of sha256sum(1), names relative to the cache's root:
    <64 hexadecimal digits>  layers/<diff id>.index

So `cd CACHE && sha256sum -c layers/….sums` checks one without regfs; a layer's data file is checked by its name
(data_writer.py). Written before the index gets its name. Used by verify.py, and where a table may be damaged. Any
thread; blocks on the disk.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from regfs.store.files.cached_files import hash_file, read_file
from regfs.store.files.failures import cache_failure

SUFFIX = ".sums"
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def format_sums(sums: Mapping[str, str]) -> bytes:
    """Return the text of a sums file: hexadecimal sha256 by name."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()).encode()


def load_sums(path: Path) -> dict[str, str]:
    """Return the sha256 of each file by its name below the cache's root. Raises OSError; ValueError if it is torn."""
    sums = {}
    for line in read_file(path).decode("ascii").splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"{path} is not a list of sums")
        sums[found[2]] = found[1]
    if not sums:
        raise ValueError(f"{path} is empty")
    return sums


def is_as_written(root: Path, path: Path) -> bool:
    """Tell whether the index or merged table at *path*, below the cache's *root*, still has its checksum.

    Reads it whole. Raises CacheFailure where it cannot be read now; False where it or its sums are gone.
    """
    try:
        sums = load_sums(path.with_suffix(SUFFIX))
        return sums.get(path.relative_to(root).as_posix()) == sha256_of(path)
    except (FileNotFoundError, ValueError):
        return False
    except OSError as error:
        raise cache_failure(path, error) from error


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file: a second for each gigabyte. Raises OSError."""
    return hash_file(path, hashlib.sha256())
