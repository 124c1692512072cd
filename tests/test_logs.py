"""The log: where it goes, and that it cannot fill a disk."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.daemon import logs
from regfs.daemon.logs import JournalFormatter, LogPlace, Sparse, log_place, name_of_log, start_logging
from regfs.errors import MountFailure

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
    assert start_logging(logging.INFO, LogPlace("file", str(tmp_path / "log")), environment={}) is None
    log.info("mounted at %s", "/mnt")
    log.debug("not this")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith(" INFO regfs.test: mounted at /mnt")


def test_names_that_are_no_text_do_not_stop_the_log(tmp_path: Path) -> None:
    start_logging(logging.INFO, LogPlace("file", str(tmp_path / "log")), environment={})
    log.info("%s", os.fsdecode(b"\xff"))
    assert "\\udcff" in (tmp_path / "log").read_text()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(MountFailure, match="No such file or directory; choose another with --log-file"):
        start_logging(logging.INFO, LogPlace("file", str(tmp_path / "no/log")), environment={})


def test_the_journal_gets_a_priority_before_each_line() -> None:
    made = logging.LogRecord("regfs", logging.WARNING, "m", 1, "one\ntwo", (), None)
    assert JournalFormatter("%(message)s").format(made) == "<4>one\n<4>two"


@pytest.fixture
def no_syslog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(logs, "_SYSLOG", str(tmp_path / "no/such/socket"))


def test_the_place_of_the_log_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert log_place(Path("/var/log/regfs"), cache=tmp_path, foreground=False) == ("file", "/var/log/regfs")
    assert log_place(None, cache=tmp_path, foreground=True).kind == "stderr"
    monkeypatch.setattr(logs, "_SYSLOG", str(tmp_path))
    assert log_place(None, cache=tmp_path, foreground=False) == ("syslog", "syslog (journalctl -t regfs)")


def test_without_a_syslog_the_log_is_in_the_cache_which_is_told_once(no_syslog: None, tmp_path: Path) -> None:
    cache = tmp_path / "not/yet/there"
    place = log_place(None, cache=cache, foreground=False)
    assert place == ("own", str(cache / "regfs.log"))
    assert start_logging(logging.INFO, place, environment={}) == f"there is no syslog here: the log is in {place.name}"
    assert name_of_log(place) == place.name
    log.info("first")
    assert start_logging(logging.INFO, place, environment={}) is None
    log.info("second")
    assert [line.rpartition(" ")[2] for line in Path(place.name).read_text().splitlines()] == ["first", "second"]


def test_without_a_syslog_and_a_cache_there_is_no_log_and_a_mount_all_the_same(no_syslog: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = log_place(None, cache=tmp_path / "file", foreground=False)
    assert start_logging(logging.INFO, place, environment={}) == "there is no syslog here: --log-file FILE keeps a log"
    assert name_of_log(place) == "none"  # `status` names no file that is not there
    log.info("nowhere")


def test_a_log_that_regfs_chose_is_bounded_however_many_daemons_write_it(
    no_syslog: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(logs, "_OWN_LIMIT", 10_000)
    handlers = [logs.BoundedFileHandler(tmp_path / "regfs.log") for _ in range(3)]
    for number in range(3000):
        handlers[number % 3].emit(logging.makeLogRecord({"msg": f"{number} {'x' * 100}"}))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(sizes) == ["regfs.log", "regfs.log.1"]
    assert max(sizes.values()) < 11_000
    last = (tmp_path / "regfs.log").read_text().splitlines()[-3:]
    assert [line.split()[0] for line in last] == ["2997", "2998", "2999"]
    for handler in handlers:
        handler.close()


def test_a_read_does_not_hang_where_the_log_went_with_a_deleted_cache(tmp_path: Path) -> None:
    """The error of opening the log again ended the thread that answers the kernel, and its reader waited for ever."""
    directory = tmp_path / "cache"
    directory.mkdir()
    handler = logs.BoundedFileHandler(directory / "regfs.log")
    record = logging.LogRecord("regfs", logging.WARNING, "", 0, "said", None, None)
    handler.emit(record)
    shutil.rmtree(directory)
    handler.emit(record)
    handler.emit(record)
    directory.mkdir()
    handler.emit(record)
    handler.close()
    assert (directory / "regfs.log").read_text() == "said\n"
