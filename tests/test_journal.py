"""What went wrong lately."""

from __future__ import annotations

import logging
import time

import pytest

from regfs.errors import AccessDenied, NotFound
from regfs.telemetry.journal import Journal
from regfs.telemetry.stats import Stats


def test_a_failure_is_logged_once_and_then_counted(caplog: pytest.LogCaptureFixture) -> None:
    stats = Stats()
    journal = Journal(stats)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            journal.record("open a", AccessDenied("ghcr.io refuses"))
    assert len(caplog.records) == 1
    assert " x3 open a: AccessDenied: ghcr.io refuses\n" in journal.text()
    assert stats.value("errors") == 3


def test_a_failure_is_logged_though_the_clock_was_set_back_since_it_was_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not, until the clock had come to that time again."""
    journal = Journal(Stats())
    with caplog.at_level(logging.WARNING):
        for now in (2e9, 1e9, 1e9 + 1):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            journal.record("open a", AccessDenied("ghcr.io refuses"))
    assert len(caplog.records) == 2


def test_only_the_last_failures_are_kept() -> None:
    journal = Journal(Stats())
    for number in range(500):
        journal.record(f"open {number}", NotFound("gone"))
    lines = journal.text().splitlines()
    assert len(lines) == 200
    assert "open 499" in lines[-1]


def test_a_failure_is_one_line_whatever_the_registry_said_and_files_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = Journal(Stats())
    journal.record("open a\nb", NotFound("first\nsecond\x1b[31m\x00"))
    assert "\n" not in caplog.messages[0]
    assert len(journal.text().splitlines()) == 1
    assert "\x1b" not in journal.text()


def test_what_may_surprise_is_told_beside_the_failures_and_is_none(caplog: pytest.LogCaptureFixture) -> None:
    stats = Stats()
    journal = Journal(stats)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            journal.note("the tag app:1 moved")
    [line] = journal.text().splitlines()
    assert line.endswith("x2 the tag app:1 moved")
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.INFO, "the tag app:1 moved")]
    assert stats.value("errors") == 0
