"""File handles."""

from __future__ import annotations

import pytest

from regfs.errors import BadHandle
from regfs.mount.handles import Handles


def test_a_handle_gives_back_what_was_opened_until_it_is_taken() -> None:
    handles: Handles[str] = Handles()
    number = handles.add("a")
    assert (handles.get(number), handles.take(number), len(handles)) == ("a", "a", 0)


def test_a_closed_handle_is_bad() -> None:
    handles: Handles[str] = Handles()
    number = handles.add("a")
    handles.take(number)
    with pytest.raises(BadHandle):
        handles.get(number)
    with pytest.raises(BadHandle):
        handles.take(number)


def test_a_number_is_never_given_out_twice() -> None:
    handles: Handles[str] = Handles()
    first = handles.add("a")
    handles.take(first)
    assert handles.add("b") != first


def test_the_end_of_a_session_takes_all_that_is_open() -> None:
    handles: Handles[str] = Handles()
    handles.add("a")
    handles.add("b")
    assert sorted(handles.take_all()) == ["a", "b"]
    assert len(handles) == 0
