"""What is kept of the moves of tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from regfs.model.names import RepositoryName
from regfs.store.references import tag_history
from regfs.store.references.references import References
from regfs.store.references.tag_history import Move, TagHistory

APP = RepositoryName("docker.io", "library/app")


@pytest.fixture
def history(tmp_path: Path) -> TagHistory:
    return References(tmp_path / "names").history


def saw(history: TagHistory, digest: str, at: float, *, tag: str = "1", asked: float | None = None) -> None:
    history.observe(APP, tag, digest, asked=at if asked is None else asked, seen=at, was_seen=at - 5 if at > 10 else 0)


def digests(history: TagHistory, tag: str = "1") -> list[str]:
    return [move.digest for move in history.moves(APP, tag)]


def test_a_move_is_kept_with_its_time_and_an_answer_that_is_the_same_is_none(history: TagHistory) -> None:
    for digest, at in (("a", 10), ("a", 20), ("b", 30), ("b", 40)):
        saw(history, digest, at)
    assert history.moves(APP, "1") == [Move("a", 10, "", 0), Move("b", 30, "a", 25)]


def test_a_tag_that_moves_back_and_forth_has_each_of_the_moves(history: TagHistory) -> None:
    for at, digest in enumerate("abab", start=1):
        saw(history, digest, at)
    assert digests(history) == ["a", "b", "a", "b"]
    assert [history.last_until(APP, "1", at).digest for at in (1, 2, 3.5, 99)] == ["a", "b", "a", "b"]  # type: ignore[union-attr]
    assert history.last_until(APP, "1", 0.5) is None


def test_a_deletion_is_a_move_and_a_tag_that_never_was_is_nothing(history: TagHistory) -> None:
    saw(history, "", 1)
    assert digests(history) == []
    for at, digest in enumerate(["a", "", "", "b"], start=2):
        saw(history, digest, at)
    assert digests(history) == ["a", "", "b"]


def test_an_answer_that_another_process_has_overtaken_is_no_move_back(tmp_path: Path) -> None:
    one, other = References(tmp_path / "names").history, References(tmp_path / "names").history
    saw(one, "a", 10)
    saw(other, "b", 30, asked=29)
    saw(one, "a", 31, asked=28)  # it was asked before the other one had its answer
    assert digests(one) == digests(other) == ["a", "b"]
    saw(one, "a", 41, asked=40)
    assert digests(other) == ["a", "b", "a"]


def test_two_processes_that_see_the_same_move_keep_one(tmp_path: Path) -> None:
    one, other = References(tmp_path / "names").history, References(tmp_path / "names").history
    for each in (one, other):
        saw(each, "a", 10)
        saw(each, "b", 20)
    assert digests(one) == ["a", "b"]


def test_a_clock_that_was_set_back_does_not_end_the_history(history: TagHistory) -> None:
    saw(history, "a", 1_000_000)
    for at, digest in enumerate("bbc", start=10):
        saw(history, digest, at)
    assert digests(history) == ["a", "b", "c"]


def test_a_tag_and_a_cache_keep_a_bounded_number(history: TagHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag_history, "MOST_OF_ONE", 3)
    monkeypatch.setattr(tag_history, "MOST", 5)
    for at in range(1, 10):
        saw(history, str(at), at)
    assert digests(history) == ["7", "8", "9"]
    for tag in ("2", "3", "4"):
        saw(history, "x", 20, tag=tag)
    assert digests(history) == ["8", "9"]
    assert history.tags("docker.io", "library/app") == ["1", "2", "3", "4"]
    assert history.repositories() == [("docker.io", "library/app")]
