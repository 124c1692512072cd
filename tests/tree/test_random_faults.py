"""Many readers, tags that move and a registry that misbehaves at random: each answer is right or an error.

Never a wrong byte, never a missing name for what is there, nothing kept in the end; and all is well once the registry
is well.
"""

from __future__ import annotations

import random
import threading

import pytest

from regfs.errors import InvalidName, NotFound, RegfsError
from regfs.model.node_id import ROOT
from regfs.process.waiting.deadline import Deadline, under
from tests.support.fault_server import Action, Connection, Response, changed, close, cut, reply, reset
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX
from tests.support.served import Served
from tests.support.shown import Shown

READERS, STEPS = 6, 60
AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}


def version(number: int) -> BuiltImage:
    text = b"version %d" % number
    return image_of(layer(file("base", b"base" * 30_000)), layer(file("one", text), file("two", text)))


def flip(response: Response) -> Response:
    body = bytearray(response.body)
    if body:
        body[len(body) // 2] ^= 1
    return Response(response.status, response.headers, bytes(body))


# None of them may be a 404: that would be an answer.
FAULTS: list[Action] = [
    reply(500), reply(503), reply(429), reply(403), reply(200, "<html>"), close, cut(20), reset(), changed(flip),
]  # fmt: skip


class Misbehaving:
    """An action that is right in half of the cases."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, connection: Connection) -> bool:
        with self._lock:
            fault = self._random.choice(FAULTS) if self._random.random() < 0.5 else None
        if "/sha256:" not in connection.seen.path and fault is FAULTS[-1]:
            fault = None  # no client can tell that these are not the bytes that the tag names
        return connection.answer(connection.right()) if fault is None else fault(connection)


class Reader:
    """Reads two files below one rootfs again and again, as a process does that has its root there."""

    def __init__(self, shown: Shown, seed: int) -> None:
        self._tree = shown.tree
        self._random = random.Random(seed)
        self.right = 0
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        for _ in range(STEPS):
            held: list[int] = []
            try:
                with under(Deadline(20)):
                    self._step(held)
            except (NotFound, InvalidName) as error:
                self.wrong.append(f"missing: {error!r}")
            except RegfsError:
                pass
            except Exception as error:  # any other exception is a bug, which the test reports
                self.wrong.append(repr(error))
            finally:
                for node in reversed(held):
                    self._tree.forget(node, 1)

    def _step(self, held: list[int]) -> None:
        node = ROOT
        way = self._random.choice(
            [b"app/1/rootfs", b"app/1/manifests/linux-amd64/rootfs", b"app/1/layers/1/tree", b"app:1/rootfs"]
        )
        for name in way.split(b"/"):
            node = self._tree.lookup(node, name).node
            held.append(node)
        one, two = (self._read(node, name) for name in (b"one", b"two"))
        if one != two or not one.startswith(b"version "):
            self.wrong.append(f"{one!r} and {two!r} in one image")
        self.right += 1

    def _read(self, node: int, name: bytes) -> bytes:
        opened = self._tree.open(self._tree.lookup(node, name).node)
        try:
            return opened.read_at(0, 1000)
        finally:
            opened.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_under_random_faults_each_answer_is_right_or_an_error(served: Served, seed: int) -> None:
    def move(number: int) -> None:
        built = served.push("app", "new", version(number))
        served.document("app", "1", index_of(built.descriptor(**AMD64)), INDEX)

    move(0)
    served.server.on("*", "app", Misbehaving(seed))
    shown = served.show(tag_ttl_s=0.0)
    readers = [Reader(shown, seed * 100 + number) for number in range(READERS)]
    for number in range(1, 10):
        move(number)
    for reader in readers:
        reader.join()
    assert [wrong for reader in readers for wrong in reader.wrong] == []
    assert sum(reader.right for reader in readers) > 0
    assert list(shown.tree._invented._kept) == [ROOT]
    assert shown.tree._slots.all() == []
    served.server.heal()
    assert shown.read("app/1/rootfs/one") == b"version 9"
