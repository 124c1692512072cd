"""A registry that does not list its repositories: the root can be read, and .regfs/errors says why it is short."""

from __future__ import annotations

import pytest

from tests.support.fault_server import Action, reply
from tests.support.images import file, image_of, layer
from tests.support.ports import Reserved
from tests.support.served import Served
from tests.support.shown import Shown


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(401), "does not list its repositories"),
        (reply(403), "does not list its repositories"),
        (reply(200, "<html>", {"Content-Type": "text/html"}), "does not list its repositories"),
        (reply(503), "cannot list its repositories"),
    ],
    ids=["401", "403", "web page", "503"],
)
def test_why_the_root_lists_little_is_told_once_however_often_it_is_listed(
    served: Served, answer: Action, words: str
) -> None:
    served.push("app", "1", image_of(layer(file("a"))))
    served.server.on("GET", "_catalog", answer)
    shown = served.show()
    for _ in range(5):
        assert shown.names() == [".regfs", served.server.address]
    told = shown.read(".regfs/errors").decode().splitlines()
    assert len(told) == 1
    assert words in told[0]
    assert served.server.address in told[0]
    assert " x1 " in told[0]


def test_a_default_registry_that_cannot_be_resolved_is_told(served: Served) -> None:
    with Shown(served.cache, default_registry="unknown.invalid") as shown:
        for _ in range(3):
            assert shown.names() == [".regfs", "unknown.invalid"]
        told = shown.read(".regfs/errors").decode().splitlines()
    assert len(told) == 1
    assert "unknown.invalid cannot list its repositories" in told[0]


def test_a_default_registry_that_refuses_connections_is_told(served: Served) -> None:
    address = f"127.0.0.1:{Reserved('127.0.0.1').number}"
    with Shown(served.cache, default_registry=address) as shown:
        assert shown.names() == [".regfs", address]
        assert "cannot list its repositories" in shown.read(".regfs/errors").decode()


def test_what_cannot_be_asked_offline_is_no_failure(served: Served) -> None:
    shown = served.show(offline=True)
    assert shown.names() == [".regfs", served.server.address]
    assert shown.read(".regfs/errors") == b""
