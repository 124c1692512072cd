"""Answers in memory: each for a time, never more than so many, and none from before a refresh."""

from __future__ import annotations

import pytest

from regfs.images.answers.remembered import Refreshes, Remembered

Answers = Remembered[str, int]


@pytest.fixture
def refreshes() -> Refreshes:
    return Refreshes()


@pytest.fixture
def answers(refreshes: Refreshes) -> Answers:
    return Remembered(refreshes, ttl_s=3600.0, most=100)


def test_an_answer_that_is_kept_holds(answers: Answers) -> None:
    kept = answers.keep("a", 1)
    assert (answers.get("a"), answers.answer("a"), "a" in answers) == (1, kept, True)
    assert 3500.0 < kept.valid_s <= 3600.0


def test_a_false_answer_is_an_answer(refreshes: Refreshes) -> None:
    answers: Remembered[str, bool] = Remembered(refreshes, ttl_s=3600.0)
    answers.keep("a", False)
    assert (answers.get("a"), "a" in answers, answers.get("b"), "b" in answers) == (False, True, None, False)


def test_no_answer_holds_longer_than_the_ttl(answers: Answers) -> None:
    assert answers.keep("a", 1, for_s=1e9).valid_s <= 3600.0
    assert answers.keep("b", 1, for_s=10.0).valid_s <= 10.0


def test_with_no_time_to_live_nothing_is_remembered(refreshes: Refreshes) -> None:
    answers: Answers = Remembered(refreshes, ttl_s=0.0)
    assert answers.keep("a", 1).valid_s == 0.0
    assert answers.answer("a") is None


def test_a_newer_answer_without_time_ends_the_older_one(answers: Answers) -> None:
    answers.keep("a", 1)
    answers.keep("a", 2, for_s=0.0)
    assert answers.get("a") is None


def test_a_refresh_ends_every_answer_of_all_memories(refreshes: Refreshes, answers: Answers) -> None:
    other: Answers = Remembered(refreshes, ttl_s=3600.0)
    answers.keep("a", 1)
    other.keep("b", 2)
    refreshes.refresh()
    assert (answers.get("a"), other.get("b"), answers.drop("a")) == (None, None, None)


def test_what_was_asked_for_before_a_refresh_is_not_kept_after_it(refreshes: Refreshes, answers: Answers) -> None:
    asked_at = refreshes.count
    refreshes.refresh()
    kept = answers.keep("a", 1, asked_at=asked_at)
    assert (kept.value, kept.valid_s, answers.get("a")) == (1, 0.0, None)
    answers.keep("a", 2, asked_at=refreshes.count)
    assert answers.get("a") == 2


def test_the_answers_used_last_are_kept_when_there_are_too_many(answers: Answers) -> None:
    answers.keep("first", 0)
    for number in range(1000):
        answers.keep(f"name-{number}", number)
        assert answers.get("first") == 0
    assert len(answers) == 100
    assert answers.get("name-0") is None


def test_answers_that_proved_wrong_are_dropped_alone(answers: Answers) -> None:
    for number, name in enumerate("abc"):
        answers.keep(name, number)
    answers.drop_where(lambda _, value: value == 1)
    assert [answers.get(name) for name in "abc"] == [0, None, 2]
    assert (answers.drop("c"), answers.get("c")) == (2, None)
