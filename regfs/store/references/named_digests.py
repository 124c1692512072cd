"""Reads all digests that the memory of references (references.py) names, for `regfs cache ls` and `rm`.

Reads the database beside the daemons that write it, and creates none. Thread rule: a function.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from regfs.errors import InvalidName
from regfs.model.digest import Digest
from regfs.model.names import RepositoryName
from regfs.store.files.failures import cache_failure
from regfs.store.tables.shared_database import read_only_uri

_ALL = """
SELECT registry, path, tag, digest FROM tags
UNION ALL SELECT registry, path, NULL, digest FROM manifests ORDER BY 1, 2, 3
"""


class NamedDigest(NamedTuple):
    """A manifest or index that *repository* has shown: by *tag*, or by its digest alone."""

    repository: RepositoryName
    tag: str | None
    digest: Digest


def named_digests(path: Path) -> Iterator[NamedDigest]:
    """Yield all that the references database at *path* names; nothing where there is none. Raises CacheFailure."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(read_only_uri(path), uri=True)) as database:
            rows = database.execute(_ALL).fetchall()
    except sqlite3.Error as error:
        raise cache_failure(path, OSError(0, str(error))) from error
    for registry, repository, tag, digest in rows:
        try:
            yield NamedDigest(RepositoryName(registry, repository), tag, Digest.parse(digest))
        except InvalidName:
            continue  # a damaged row; look-ups skip it too
