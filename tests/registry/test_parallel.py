"""One big blob over several connections: pieces in order, the digest as ever, one connection where that fails."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from regfs.errors import DigestMismatch
from regfs.model.manifest import Descriptor
from regfs.registry.client import RegistryClient
from regfs.registry.parallel import Growth
from tests.support.client_rig import Rig, repository_of
from tests.support.fault_server import Action, Connection, FaultServer, Response, changed, cut, reply
from tests.support.memory_registry import MemoryRegistry

PIECE = 100_000
CONTENT = random.Random(5).randbytes(1_500_000)


def _all_but_counted(connection: Connection, leave: Callable[[], None]) -> bool:
    """Send the right answer; *leave* is called before its last byte, after which the client may ask again at once."""
    right = connection.right()
    connection.send(right.head() + right.body[:-1])
    leave()
    connection.send(right.body[-1:])
    return True


class SlowWholes:
    """Gives whole blobs drop by drop once the first bytes were sent, so that pieces overtake them; counts the bytes.

    *pieces* answers the requests for a part; the right part unless given. Once *is_over*, all comes at once.
    """

    def __init__(
        self, *, pieces: Action | None = None, at_once: int = 200_000, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        self.sent = 0
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self._pieces = pieces
        self._at_once = at_once
        self._is_over = is_over

    def __call__(self, connection: Connection) -> bool:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        left = False

        def leave() -> None:
            nonlocal left
            with self._lock:
                self._now -= not left
                left = True

        try:
            if "range" not in connection.seen.headers:
                return self._whole(connection)
            return self._pieces(connection) if self._pieces else _all_but_counted(connection, leave)
        finally:
            leave()

    def _whole(self, connection: Connection) -> bool:
        right = connection.right()
        connection.send(right.head() + right.body[: self._at_once])
        self.sent += self._at_once
        for start in range(self._at_once, len(right.body), 20_000):
            if not self._is_over():
                connection.stopped.wait(0.01)
            connection.send(right.body[start : start + 20_000])
            self.sent += 20_000
        return True


def serving(rig: Rig, whole: Action | None = None, content: bytes = CONTENT) -> tuple[FaultServer, Descriptor]:
    application = MemoryRegistry()
    server = rig.server(application)
    server.on("GET", "/blobs/", whole or SlowWholes())
    return server, application.add_blob("demo/app", content)


def client_of(rig: Rig, server: FaultServer, **more: object) -> RegistryClient:
    return rig.client(server, **{"connections": 3, "max_piece": PIECE, **more})  # type: ignore[arg-type]


def fetched(client: RegistryClient, server: FaultServer, blob: Descriptor) -> bytes:
    return b"".join(client.blobs.stream(repository_of(server), blob))


def ranges(server: FaultServer) -> list[str]:
    return [each for each in server.headers("range", "/blobs/") if each is not None]


def test_pieces_come_over_several_connections_and_in_order(rig: Rig) -> None:
    both = threading.Barrier(2, timeout=60)
    early = iter(range(2))

    def two_at_once(connection: Connection) -> bool:
        if next(early, None) is not None:
            both.wait()
        return connection.answer(connection.right())

    whole = SlowWholes(pieces=two_at_once)
    server, blob = serving(rig, whole)
    assert fetched(client_of(rig, server), server, blob) == CONTENT
    assert not both.broken
    assert whole.sent < len(CONTENT)
    assert len(set(ranges(server))) == len(ranges(server)) == rig.stats.value("registry.pieces") >= 8
    assert len(server.paths("/blobs/")) == len(ranges(server)) + 1


def test_one_connection_is_one_request(rig: Rig) -> None:
    server, blob = serving(rig, SlowWholes(is_over=lambda: True))
    assert fetched(client_of(rig, server, connections=1), server, blob) == CONTENT
    assert len(server.paths("/blobs/")) == 1


def test_a_blob_that_comes_fast_is_one_request(rig: Rig) -> None:
    server, blob = serving(rig, SlowWholes(is_over=lambda: True))
    assert fetched(client_of(rig, server, connections=None), server, blob) == CONTENT
    assert len(server.paths("/blobs/")) == 1


def test_a_connection_that_is_the_limit_gets_others_beside_it(rig: Rig) -> None:
    content, whole = CONTENT * 4, SlowWholes()
    server, blob = serving(rig, whole, content)
    assert fetched(client_of(rig, server, connections=None), server, blob) == content
    assert whole.sent < len(content)
    assert len(ranges(server)) >= 20


def test_a_blob_of_few_pieces_is_one_request(rig: Rig) -> None:
    server, blob = serving(rig, SlowWholes())
    assert fetched(client_of(rig, server, connections=None, max_piece=500_000), server, blob) == CONTENT
    assert len(server.paths("/blobs/")) == 1


REFUSALS = {
    "200": changed(lambda _: Response(200, (), CONTENT)),
    "400": reply(400),
    "416": reply(416),
    "501": reply(501),
    "another range": changed(lambda right: right.with_header("Content-Range", f"bytes 0-99999/{len(CONTENT)}")),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_where_ranges_are_refused_one_connection_brings_all_and_that_is_remembered(rig: Rig, refusal: Action) -> None:
    whole = SlowWholes(pieces=refusal, is_over=lambda: rig.stats.value("registry.refused_pieces") > 0)
    server, blob = serving(rig, whole)
    client = client_of(rig, server)
    assert fetched(client, server, blob) == CONTENT
    assert rig.stats.value("registry.refused_pieces") == 1
    assert whole_requests(server) == 1
    begun = rig.stats.value("registry.pieces")  # the server may see some of them later
    assert fetched(client, server, blob) == CONTENT
    assert (whole_requests(server), rig.stats.value("registry.pieces")) == (2, begun)


def test_a_piece_that_is_cut_is_completed(rig: Rig) -> None:
    server, blob = serving(rig)
    server.heal()
    cuts = iter([cut(40_000), cut(0)])
    server.on("GET", "/blobs/", SlowWholes(pieces=lambda it: next(cuts, lambda each: each.answer(each.right()))(it)))
    assert fetched(client_of(rig, server), server, blob) == CONTENT
    assert rig.stats.value("registry.refused_pieces") == 0


def test_where_a_piece_cannot_be_had_one_connection_goes_on_there(rig: Rig) -> None:
    def refused_once(connection: Connection) -> bool:
        start = int(connection.seen.headers["range"].removeprefix("bytes=").partition("-")[0])
        if 600_000 <= start < 700_000 and connection.seen.headers["range"].partition("-")[2] != str(len(CONTENT) - 1):
            return connection.answer(Response(404))
        return connection.answer(connection.right())

    server, blob = serving(rig, SlowWholes(pieces=refused_once))
    assert fetched(client_of(rig, server), server, blob) == CONTENT
    assert any(each.endswith(f"-{len(CONTENT) - 1}") and not each.startswith("bytes=0-") for each in ranges(server))


def test_wrong_bytes_of_a_piece_are_found_and_the_next_attempt_uses_one_connection(rig: Rig) -> None:
    server, blob = serving(
        rig, SlowWholes(pieces=changed(lambda right: Response(206, right.headers, bytes(len(right.body)))))
    )
    client = client_of(rig, server)
    with pytest.raises(DigestMismatch):
        fetched(client, server, blob)
    before = len(ranges(server))
    assert fetched(client, server, blob) == CONTENT
    assert len(ranges(server)) == before


def test_a_redirect_serves_all_pieces_and_is_asked_for_again_once_its_url_is_too_old(rig: Rig) -> None:
    storage, _ = serving(rig)
    server, blob = serving(rig, SlowWholes())
    server.heal()
    server.on(
        "GET", "/blobs/", reply(307, headers={"Location": f"{storage.url}/v2/demo/app/blobs/{blob.digest}?1"}), times=1
    )
    server.on("GET", "/blobs/", reply(307, headers={"Location": f"{storage.url}/v2/demo/app/blobs/{blob.digest}?2"}))
    old = SlowWholes()
    served = iter(range(4))

    def signed(connection: Connection) -> bool:
        is_old = connection.seen.path.endswith("?1") and next(served, None) is None
        return connection.answer(Response(403)) if is_old else old(connection)

    storage.heal()
    storage.on("GET", "/blobs/", signed)
    assert fetched(client_of(rig, server), server, blob) == CONTENT
    assert 2 <= len(server.paths("/blobs/")) <= 4  # three connections may have found the URL too old at once
    assert len(ranges(storage)) >= 8


def test_a_transfer_that_is_given_up_leaves_no_request_behind(rig: Rig) -> None:
    server, blob = serving(rig)
    client = client_of(rig, server)
    for _ in range(8):  # more than there is room for pieces, and slots for transfers
        stream = iter(client.blobs.stream(repository_of(server), blob))
        next(stream)
        stream.close()
    assert fetched(client, server, blob) == CONTENT
    assert whole_requests(server) >= 9


def whole_requests(server: FaultServer) -> int:
    return len(server.paths("/blobs/")) - len(ranges(server))


def test_many_big_blobs_share_the_slots_of_their_host(rig: Rig) -> None:
    whole = SlowWholes()
    server, blob = serving(rig, whole)
    client = client_of(rig, server, connections=6)
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(lambda _: fetched(client, server, blob), range(4)))
    assert contents == [CONTENT] * 4
    # A handler of the server ends a moment after its client has all bytes and gives its slot to the next request.
    assert whole.most_at_once < 12


class Line:
    """A clock, and the bytes that come over each connection in a second while the reader waits *waits* of the time."""

    def __init__(self, most: int = 6) -> None:
        self.now_s = 100.0
        self.growth = Growth(most, is_fixed=False, clock=lambda: self.now_s)

    def window(self, rate: float, *, waits: float = 1.0, are_flowing: bool = True) -> int:
        def wait() -> bytes:
            self.now_s += waits
            return b""

        self.growth.waiting_for(wait)
        self.now_s += 1.0 - waits
        self.growth.received(int(rate))
        self.growth.look(are_flowing=are_flowing)
        return self.growth.connections


def test_connections_double_while_each_brings_its_own_rate() -> None:
    line = Line()
    assert line.window(60e6) == 2
    line.window(80e6)
    assert line.window(120e6) == 4
    line.window(200e6)
    assert line.window(240e6) == 6
    line.window(300e6)
    assert line.window(360e6) == 6


def test_a_line_that_is_full_with_one_connection_keeps_one() -> None:
    line = Line()
    line.window(12e6)
    line.window(12e6)
    assert line.window(12.5e6) == 1
    assert line.window(12e6) == 1


def test_after_a_window_in_which_others_took_the_line_more_connections_are_tried_again() -> None:
    line = Line()
    assert line.window(60e6) == 2
    line.window(60e6)
    assert line.window(50e6) == 1
    assert line.window(60e6) == 1
    assert line.window(60e6) == 2
    line.window(80e6)
    assert line.window(120e6) == 4


def test_a_line_that_stays_full_is_tried_a_few_times_only() -> None:
    line = Line()
    assert [line.window(12e6) for _ in range(60)][-40:] == [1] * 40


def test_connections_that_are_not_there_yet_are_no_proof_that_they_bring_nothing() -> None:
    line = Line()
    assert line.window(60e6) == 2
    line.window(60e6, are_flowing=False)
    assert line.window(70e6) == 2
    assert line.window(120e6) == 4


def test_a_reader_that_is_the_limit_gets_no_more_connections() -> None:
    line = Line()
    assert line.window(200e6, waits=0.1) == 1
    assert line.window(60e6, waits=0.9) == 2
    line.window(100e6)
    assert line.window(100e6, waits=0.1) == 2


def test_pieces_are_what_a_connection_brings_in_a_quarter_of_a_second() -> None:
    line = Line()
    line.window(24e6)
    assert line.growth.piece_size == 6_000_000
