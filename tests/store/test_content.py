"""Reading cached file contents: exact, or an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regfs.errors import CacheFailure
from regfs.model.digest import Digest
from regfs.store.layers.content import Nothing, OpenContent, Span, content_of, empty
from regfs.store.layers.data_files import DataFile

LAYER = Digest.of(b"layer")


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def test_a_rows_content_tells_where_its_bytes_are() -> None:
    assert content_of(LAYER, None, 0) == Nothing()
    assert content_of(LAYER, 12, 0) == Nothing()
    assert content_of(LAYER, 512, 3) == Span(LAYER, 512, 3)


def test_a_span_reads_as_its_own_range_only(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"aaabbbccc")
    data = DataFile(tmp_path / "data")
    content = OpenContent(data.fd, 3, start=3, shared=data)
    assert content.read_at(0, 100) == b"bbb"
    assert content.read_at(1, 1) == b"b"
    assert content.read_at(3, 5) == b""
    assert content.backing_fd() is None
    content.close()
    assert os.pread(data.fd, 3, 0) == b"aaa"


def test_a_file_of_its_own_gives_its_descriptor_until_it_is_closed(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"content")
    content = OpenContent(opened(tmp_path / "object"), 7)
    fd = content.backing_fd()
    assert fd is not None
    assert os.pread(fd, 99, 0) == b"content"
    content.close()
    content.close()
    assert content.backing_fd() is None
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_file_that_is_too_short_is_an_error_not_a_short_read(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"con")
    with pytest.raises(CacheFailure):
        OpenContent(opened(tmp_path / "object"), 7).read_at(0, 7)


def test_nothing_reads_as_nothing() -> None:
    assert empty().read_at(0, 10) == b""
