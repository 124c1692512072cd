"""The record of a start: which parts of an image's files were read, in the order of their first reads.

    {"version": 1,
     "files": ["usr/bin/python3.11", "usr/lib/libc.so.6", …],          paths below the root
     "reads": [[0, 0, 131072], [1, 0, 65536], [0, 131072, 4096], …]}   number of the file, offset and size in it

It is kept in the cache by the digest of the image's manifest, and pushed as an artifact that refers to that manifest:

    manifest    artifactType and the one layer's mediaType START_TYPE, an empty config, subject: the image's manifest,
                annotation org.opencontainers.image.created
    layer       the JSON above

A record is a hint. Its content is not trusted. Used by images/starts/. Pure; any thread.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from regfs.errors import BadContent, Unsupported
from regfs.model.strict_json import naming, parse_document

START_TYPE = "application/vnd.regfs.start.v1+json"
VERSION = 1
MAX_RECORD = 4 << 20
MOST_FILES = 20_000
MOST_READS = 100_000
_MAX_PATH = 4096
_MAX_OFFSET = 1 << 62


class Read(NamedTuple):
    """*size* bytes at *offset* of the file number *file*."""

    file: int
    offset: int
    size: int


class StartRecord(NamedTuple):
    """What was read of *files*, in order."""

    files: tuple[str, ...]
    reads: tuple[Read, ...]


def render_start_record(record: StartRecord) -> bytes:
    """Return the JSON of *record*."""
    document = {"version": VERSION, "files": record.files, "reads": record.reads}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def parse_start_record(content: bytes) -> StartRecord:
    """Return the record that *content* is. Raises BadContent, TooLarge, Unsupported for another version."""
    with naming(content):
        document = parse_document(content, error=BadContent, limit=MAX_RECORD)
        if document.size("version") != VERSION:
            raise Unsupported(f"a record of version {document.size('version')}; regfs reads {VERSION}")
        files = document.texts("files", limit=MOST_FILES)
        if any(len(path) > _MAX_PATH or "\0" in path for path in files):
            raise BadContent("a record with an invalid path")
        reads = tuple(_read(each, len(files)) for each in document.array("reads", limit=MOST_READS))
        return StartRecord(files, reads)


def _read(value: object, files: int) -> Read:
    if not isinstance(value, Sequence) or len(value) != 3 or any(type(number) is not int for number in value):
        raise BadContent("a record with a read that is not three numbers")
    read = Read(*value)
    if not (0 <= read.file < files and 0 <= read.offset < _MAX_OFFSET and 0 < read.size < _MAX_OFFSET):
        raise BadContent(f"a record with a read of {read.size} bytes at {read.offset} of file {read.file}")
    return read
