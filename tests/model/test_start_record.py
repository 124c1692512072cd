"""Records of starts: what is written is read again, and what is wrong is refused."""

from __future__ import annotations

import json

import pytest

from regfs.errors import RegfsError, Unsupported
from regfs.model.start_record import Read, StartRecord, parse_start_record, render_start_record

RECORD = StartRecord(("usr/bin/tool", "etc/naïve"), (Read(0, 0, 4096), Read(1, 0, 10), Read(0, 8192, 4096)))


def test_a_record_that_was_written_is_read_again() -> None:
    assert parse_start_record(render_start_record(RECORD)) == RECORD


def test_another_version_is_not_guessed_at() -> None:
    with pytest.raises(Unsupported, match="version 2"):
        parse_start_record(b'{"version": 2, "files": [], "reads": []}')


@pytest.mark.parametrize(
    "reads",
    [[[2, 0, 1]], [[-1, 0, 1]], [[0, -1, 1]], [[0, 0, 0]], [[0, 0, 1 << 70]], [[0, 0]], ["abc"], [[0, 0, True]], [None],
     [[0, 0, 1.0]], {}, [[0, 0, 1]] * 100_001],
)  # fmt: skip
def test_a_wrong_record_is_refused(reads: object) -> None:
    with pytest.raises(RegfsError):
        parse_start_record(json.dumps({"version": 1, "files": ["a", "b"], "reads": reads}).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"version": 1, "files": [1], "reads": []}'])
def test_what_is_no_record_is_refused(content: bytes) -> None:
    with pytest.raises(RegfsError):
        parse_start_record(content)
