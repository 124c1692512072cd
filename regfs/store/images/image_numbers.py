"""The numbers of images and layers that st_ino has in its upper bits, handed out once for all mounts of a cache.

    image_numbers(number INTEGER PRIMARY KEY, name BLOB UNIQUE, used)      name: 16 bytes of a hash; used: seconds, 1970

An image keeps its number for as long as the file exists. When MOST are handed out, the next image gets the number that
was unused for longest. Where the file cannot be written (a full disk, another process that holds its lock), the image
gets a number above MOST, which only this process knows.
Used by tree/inode_numbers.py. Thread rule: any thread; one connection under one lock.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path

from cachetools import LRUCache, TTLCache

from regfs.store.tables.shared_database import open_database

log = logging.getLogger(__name__)

NUMBER_BITS = 20
_MOST_SPARE = 1 << 16
MOST = (1 << NUMBER_BITS) - _MOST_SPARE - 1
"""The highest number that the file hands out; the lowest is 1."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS image_numbers (
    number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, used INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS image_numbers_by_use ON image_numbers (used);
"""
_FIND = "SELECT number, used FROM image_numbers WHERE name = ?"
_TOUCH = "UPDATE image_numbers SET used = ? WHERE number = ?"
_LAST = "SELECT ifnull(max(number), 0) FROM image_numbers"
_ADD = "INSERT INTO image_numbers VALUES (?, ?, ?)"
_LONGEST_UNUSED = "SELECT number FROM image_numbers ORDER BY used LIMIT 1"
_REPLACE = "UPDATE image_numbers SET name = ?, used = ? WHERE number = ?"
# A use is recorded once a day at most, so that visiting known images writes nothing.
_FRESH_S = 86400
_MOST_REMEMBERED = 1 << 14


class ImageNumbers:
    """Hands out numbers from the database at *path*: at least 1, of at most NUMBER_BITS bits."""

    def __init__(self, path: Path, *, most: int = MOST) -> None:
        """*most* is the highest number that the file hands out."""
        self._database = open_database(path, _SCHEMA, loss="inode numbers stay the same for this mount only")
        self._most = most
        self._lock = threading.Lock()
        self._known: TTLCache[str, int] = TTLCache(_MOST_REMEMBERED, _FRESH_S)
        self._spare: LRUCache[str, int] = LRUCache(_MOST_SPARE)
        self._spare_numbers = itertools.cycle(range(MOST + 1, MOST + 1 + _MOST_SPARE))

    def number(self, image: str) -> int:
        """Return the number of the image named *image*: one for each text. Never fails."""
        with self._lock:
            number = self._known.get(image) or self._spare.get(image)
            if number is None:
                try:
                    number = self._known[image] = self._stored(image)
                except sqlite3.Error as error:
                    # The image keeps this number here even when the file can be written again: st_ino must not change.
                    log.warning("the inode numbers of %s are those of this process only: %s", image, error)
                    number = self._spare[image] = next(self._spare_numbers)
            return number

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _stored(self, image: str) -> int:
        name, now = hashlib.blake2b(image.encode(), digest_size=16).digest(), int(time.time())
        found = self._database.execute(_FIND, (name,)).fetchone()
        if found is None:
            return self._handed_out(name, now)
        if found[1] + _FRESH_S < now:
            with suppress(sqlite3.Error):  # the number is right all the same
                self._database.execute(_TOUCH, (now, found[0]))
        return int(found[0])

    def _handed_out(self, name: bytes, now: int) -> int:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have been quicker.
            found = self._database.execute(_FIND, (name,)).fetchone()
            number = int(found[0] if found else self._database.execute(_LAST).fetchone()[0] + 1)
            if found is None and number <= self._most:
                self._database.execute(_ADD, (number, name, now))
            elif found is None:
                number = int(self._database.execute(_LONGEST_UNUSED).fetchone()[0])
                self._database.execute(_REPLACE, (name, now, number))
            self._database.execute("COMMIT")
        except BaseException:  # any exception: an open transaction would lock the file for all other processes
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        return number
