"""`.regfs/`: the daemon seen from inside."""

from __future__ import annotations

import pytest

from regfs import __version__
from regfs.errors import NotFound, ReadOnly
from regfs.process.waiting.deadline import NON_BLOCKING, under
from regfs.tree.control import ControlDirectory, LiveFile
from tests.support.served import Served


def test_the_directory_and_its_files_answer_without_patience_and_without_a_request(served: Served) -> None:
    shown = served.show()
    with under(NON_BLOCKING):
        names = ["version", "stats.json", "metrics", "errors", "requests", "fetching.json", "history", "cache"]
        assert shown.names(".regfs") == names
        assert shown.read(".regfs/version") == f"regfs {__version__}\n".encode()
        assert shown.read(".regfs/errors") == b""
    assert served.server.seen == []


def test_a_failure_is_told_in_errors(served: Served) -> None:
    shown = served.show()
    shown.journal.record("write library", ReadOnly("nothing can be written"))
    assert b"ReadOnly: nothing can be written" in shown.read(".regfs/errors")


def test_what_it_does_not_have_is_named_with_what_it_has(served: Served) -> None:
    with pytest.raises(NotFound, match=r"version, stats\.json, metrics, errors, requests, fetching\.json"):
        served.show().find(".regfs/x")


def test_a_file_is_never_believed_for_long(served: Served) -> None:
    shown = served.show()
    found = shown.find(".regfs/errors")
    assert found.valid_s == 0.0
    assert shown.tree.attributes(found.node).valid_s == 0.0


def test_a_reader_gets_the_text_whose_size_was_told_last() -> None:
    texts = iter(["short", "much longer than that"])
    file = LiveFile("k", lambda: next(texts))
    size = file.attributes().size
    opened = file.open()
    file.attributes()
    assert opened.read_at(0, 1000) == b"short"
    assert size == len(b"short")
    assert not opened.keep_cache


def test_the_same_file_is_the_same_node_at_every_look_up() -> None:
    control = ControlDirectory({"version": lambda: "1\n"})
    assert control.lookup("version").node is control.lookup("version").node
