"""The log: where it goes, and that it cannot fill a disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.errors import MountFailure
from regfs.logs import JournalFormatter, Sparse, log_name, start_logging

log = logging.getLogger("regfs.test")


@pytest.fixture(autouse=True)
def kept_logging() -> Iterator[None]:
    """Put the root logger back as it was."""
    root = logging.getLogger()
    before, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        if handler not in before:
            handler.close()
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)
    logging.raiseExceptions = raising


def record(line: int) -> logging.LogRecord:
    return logging.LogRecord("regfs.test", logging.WARNING, "module.py", line, "%s failed", ("it",), None)


def test_one_kind_of_message_comes_twenty_times_in_a_minute() -> None:
    sparse = Sparse()
    assert sum(sparse.filter(record(1)) for _ in range(1000)) == 20
    assert sparse.filter(record(2))


def test_a_file_gets_time_level_room_and_text(tmp_path: Path) -> None:
    assert start_logging(logging.INFO, file=tmp_path / "log", foreground=False, environment={}) is None
    log.info("mounted at %s", "/mnt")
    log.debug("not this")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith(" INFO regfs.test: mounted at /mnt")


def test_names_that_are_no_text_do_not_stop_the_log(tmp_path: Path) -> None:
    start_logging(logging.INFO, file=tmp_path / "log", foreground=False, environment={})
    log.info("%s", os.fsdecode(b"\xff"))
    assert "\\udcff" in (tmp_path / "log").read_text()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(MountFailure, match="No such file or directory; --log-file"):
        start_logging(logging.INFO, file=tmp_path / "no/log", foreground=True, environment={})


def test_the_journal_gets_a_priority_before_each_line() -> None:
    made = logging.LogRecord("regfs", logging.WARNING, "m", 1, "one\ntwo", (), None)
    assert JournalFormatter("%(message)s").format(made) == "<4>one\n<4>two"


def test_the_place_of_the_log_has_a_name() -> None:
    assert log_name(Path("/var/log/regfs"), foreground=False) == "/var/log/regfs"
    assert "journalctl -t regfs" in log_name(None, foreground=False)
