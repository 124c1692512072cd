"""The diff ids of compressed blobs for which no config names one (files of artifacts): computed once and kept.

    diff_ids(blob TEXT PRIMARY KEY, diff_id TEXT)

The digests are of verified bytes. Where the file cannot be read or written, they are computed again. Used by
images/artifact_files.py. Thread rule: any thread; one connection under one lock.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path

from regfs.errors import InvalidName
from regfs.model.digest import Digest
from regfs.store.tables.shared_database import open_database

log = logging.getLogger(__name__)

_SCHEMA = "CREATE TABLE IF NOT EXISTS diff_ids (blob TEXT PRIMARY KEY, diff_id TEXT NOT NULL)"
_MOST = 100_000
_FORGET = "DELETE FROM diff_ids WHERE rowid <= (SELECT max(rowid) FROM diff_ids) - ?"


class DiffIds:
    """The diff ids in the database at *path*, which is opened at the first query."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def find(self, blob: Digest) -> Digest | None:
        """Return the digest of the tar inside *blob*, None where it is not known."""
        with self._lock:
            try:
                row = self._opened().execute("SELECT diff_id FROM diff_ids WHERE blob = ?", (str(blob),)).fetchone()
                return None if row is None else Digest.parse(row[0])
            except (sqlite3.Error, InvalidName) as error:
                log.warning("%s: %s", self._path, error)
                return None

    def keep(self, blob: Digest, diff_id: Digest) -> None:
        """Keep the diff id of *blob*; beyond _MOST the oldest are dropped. Never fails."""
        with self._lock:
            try:
                database = self._opened()
                database.execute("INSERT OR REPLACE INTO diff_ids VALUES (?, ?)", (str(blob), str(diff_id)))
                database.execute(_FORGET, (_MOST,))
            except sqlite3.Error as error:
                log.warning("%s: %s", self._path, error)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = open_database(self._path, _SCHEMA, loss="the tars in blobs are measured once more")
        return self._database
