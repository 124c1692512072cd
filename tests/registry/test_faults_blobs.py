"""Blobs that go wrong: F47 to F58 of the fault catalogue, at the client. F59 and F60 belong to the store.

The client promises exactly the descriptor's size in bytes, or an error; whether they are the right bytes is for the
digest, which the caller takes (`fetched` here).
"""

from __future__ import annotations

import gzip
import random
import zlib

import pytest

from regfs.errors import BadContent, DigestMismatch, NotFound, ProtocolViolation, RangesRefused, RegistryUnavailable
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.process.waiting.deadline import Deadline, under
from regfs.registry.client import RegistryClient
from tests.support.client_rig import RETRY, Rig, basic, repository_of, saw_no_secret
from tests.support.fault_server import Action, Connection, FaultServer, Response, changed, cut, raw, reply, reset
from tests.support.memory_registry import MemoryRegistry, blob_response

CONTENT = random.Random(1).randbytes(600_000)
SIZE = len(CONTENT)
DIGEST = Digest.of(CONTENT)
USER = ("user", "s3cret-word")


def serving(rig: Rig, content: bytes = CONTENT, **more: object) -> tuple[FaultServer, Descriptor]:
    application = MemoryRegistry(**more)  # type: ignore[arg-type]
    return rig.server(application), application.add_blob("demo/app", content)


def fetched(client: RegistryClient, server: FaultServer, blob: Descriptor) -> bytes:
    """Return the blob as a careful caller gets it. Raises DigestMismatch."""
    content = b"".join(client.blobs.stream(repository_of(server), blob))
    assert len(content) == blob.size, "the client gave a wrong number of bytes without an error"
    if not blob.digest.matches(content):
        raise DigestMismatch("wrong bytes")
    return content


def chunked(content: bytes, *, whole: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:100_000], content[100_000:]) if part)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if whole else b"")


CUTS = {
    "with length": cut(200_000),
    "at once": cut(0),
    "reset": reset(200_000),
    "in chunks": raw(chunked(CONTENT[:200_000], whole=False)),
    "in a chunk": raw(chunked(CONTENT)[:150_000]),
    "until close": raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + CONTENT[:200_000]),
    "chunks that end early": raw(chunked(CONTENT[:200_000])),
}


@pytest.mark.parametrize("action", CUTS.values(), ids=CUTS)
def test_f47_a_transfer_that_is_cut_is_resumed(rig: Rig, action: Action) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", action, times=1)
    assert fetched(rig.client(server), server, blob) == CONTENT
    assert len(server.paths("/blobs/")) == 2


@pytest.mark.parametrize("action", CUTS.values(), ids=CUTS)
def test_f47_a_range_that_is_cut_is_completed(rig: Rig, action: Action) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", cut(300), times=1)
    server.on("GET", "/blobs/", action, times=1)
    assert rig.client(server).blobs.range(repository_of(server), blob, 500_000, 501_000) == CONTENT[500_000:501_000]


def test_f48_a_cut_at_the_same_byte_each_time_is_given_up(rig: Rig) -> None:
    server, blob = serving(rig)

    def stop_at(connection: Connection) -> bool:
        response = connection.right()
        start = int(connection.seen.headers.get("range", "bytes=0-")[6:].partition("-")[0])
        connection.send(response.head() + response.body[: max(300_000 - start, 0)])
        return False

    server.on("GET", "/blobs/", stop_at)
    with pytest.raises(RegistryUnavailable, match="broke off"):
        fetched(rig.client(server), server, blob)
    assert len(server.paths("/blobs/")) <= RETRY.attempts + 1


def test_f48_progress_makes_up_for_failures(rig: Rig) -> None:
    content = CONTENT * 20
    server, blob = serving(rig, content)
    server.on("GET", "/blobs/", cut(1_500_000))
    assert fetched(rig.client(server), server, blob) == content
    assert len(server.paths("/blobs/")) == 8


@pytest.mark.parametrize("action", [reply(500), reply(503), reset()], ids=["500", "503", "reset"])
def test_f28_a_blob_that_never_begins_is_asked_for_as_often_as_anything_else(rig: Rig, action: Action) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", action)
    with pytest.raises(RegistryUnavailable, match=str(DIGEST)):
        fetched(rig.client(server), server, blob)
    assert len(server.paths("/blobs/")) == RETRY.attempts


@pytest.mark.parametrize("position", [SIZE // 2, SIZE - 1], ids=["middle", "last byte"])
def test_f49_a_flipped_bit_reaches_the_digest_check(rig: Rig, position: int) -> None:
    server, blob = serving(rig)
    wrong = bytearray(CONTENT)
    wrong[position] ^= 1
    server.on("GET", "/blobs/", reply(200, bytes(wrong)))
    with pytest.raises(DigestMismatch):
        fetched(rig.client(server), server, blob)


@pytest.mark.parametrize(
    "action",
    [
        reply(200, CONTENT + b"!"),
        raw(chunked(CONTENT + b"!")),
        raw(b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT + b"!"),
        raw(b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT * 3),
    ],
    ids=["length", "chunks", "close", "much"],
)
def test_f50_a_body_that_is_too_long_is_refused(rig: Rig, action: Action) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", action)
    received: list[bytes] = []
    with pytest.raises(BadContent):
        received.extend(rig.client(server).blobs.stream(repository_of(server), blob))
    assert sum(map(len, received)) <= SIZE


class NotedDeadline(Deadline):
    """A deadline that counts what moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = 0

    def moved(self) -> None:
        self.moves += 1
        super().moved()


def test_each_chunk_of_a_range_is_progress_so_that_a_slow_one_does_not_time_out(rig: Rig) -> None:
    server, blob = serving(rig)
    noted = NotedDeadline()
    with under(noted):
        assert rig.client(server).blobs.range(repository_of(server), blob, 0, SIZE) == CONTENT
    assert noted.moves > 2


def whole(_right: Response) -> Response:
    return Response(200, (), CONTENT)


def test_f51_a_range_that_is_ignored_gives_the_right_bytes(rig: Rig) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", changed(whole))
    client = rig.client(server)
    assert client.blobs.range(repository_of(server), blob, 1000, 2000) == CONTENT[1000:2000]
    assert client.blobs.range(repository_of(server), blob, SIZE - 1, SIZE) == CONTENT[-1:]


@pytest.mark.parametrize(
    "action",
    [changed(whole), reply(416), reply(400), reply(501), reply(416, headers={"Content-Range": "bytes */1"})],
    ids=["200", "416", "400", "501", "416 with a size"],
)
def test_f51_who_wants_parts_only_hears_that_there_are_none(rig: Rig, action: Action) -> None:
    """Else each part of a layer would cost as much as the layer."""
    server, blob = serving(rig)
    server.on("GET", "/blobs/", action)
    client = rig.client(server)
    with pytest.raises(RangesRefused, match="whole blobs only"):
        client.blobs.range(repository_of(server), blob, 1000, 2000, parts_only=True)
    assert len(server.paths("/blobs/")) == 1


def test_f51_a_part_under_200_is_a_part(rig: Rig) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", reply(200, CONTENT[1000:2000], {"Content-Range": f"bytes 1000-1999/{SIZE}"}))
    part = rig.client(server).blobs.range(repository_of(server), blob, 1000, 2000, parts_only=True)
    assert part == CONTENT[1000:2000]


def test_f51_a_resumption_that_starts_over_is_not_appended(rig: Rig) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", cut(250_000), times=1)
    server.on("GET", "/blobs/", changed(whole))
    assert fetched(rig.client(server), server, blob) == CONTENT


def part(start: int, stop: int, *, named: str | None = None, **extra: str) -> Action:
    """Answer 206 with these bytes, and with this Content-Range (by default the true one)."""
    content_range = f"bytes {start}-{stop - 1}/{SIZE}" if named is None else named
    headers = {"Content-Range": content_range} if content_range else {}
    headers |= {name.replace("_", "-"): value for name, value in extra.items()}
    return reply(206, CONTENT[start:stop], headers)


WRONG_PARTS = {
    "wrong start": part(0, 1000),
    "no Content-Range": part(1000, 2000, named=""),
    "garbled": part(1000, 2000, named="bytes 1000-1999"),
    "other unit": part(1000, 2000, named=f"lines 1000-1999/{SIZE}"),
    "other total": part(1000, 2000, named=f"bytes 1000-1999/{SIZE + 1}"),
    "longer": part(1000, 2001),
    "backwards": part(1000, 2000, named=f"bytes 1999-1000/{SIZE}"),
    "length differs": part(1000, 1999, named=f"bytes 1000-1999/{SIZE}"),
    "multipart": part(1000, 2000, Content_Type="multipart/byteranges; boundary=x"),
    "lies in the name": part(0, 1000, named=f"bytes 1000-2999/{SIZE}"),
    "unicode digits": part(1000, 2000, named="bytes \xd9\xa1-1999/600000"),
}


@pytest.mark.parametrize("action", WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_f52_a_part_that_is_not_what_was_asked_for_is_refused(rig: Rig, action: Action) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", action)
    with pytest.raises(BadContent):
        rig.client(server).blobs.range(repository_of(server), blob, 1000, 2000)
    assert len(server.paths("/blobs/")) == 2


@pytest.mark.parametrize("action", WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_f52_a_wrong_part_is_asked_for_once_more(rig: Rig, action: Action) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", action, times=1)
    assert rig.client(server).blobs.range(repository_of(server), blob, 1000, 2000) == CONTENT[1000:2000]


RIGHT_PARTS = {
    "short": part(1000, 1500),
    "unknown total": part(1000, 2000, named="bytes 1000-1999/*"),
    "200 with Content-Range": reply(200, CONTENT[1000:2000], {"Content-Range": f"bytes 1000-1999/{SIZE}"}),
    "upper case": part(1000, 2000, named=f"Bytes 1000-1999/{SIZE}"),
}


@pytest.mark.parametrize("action", RIGHT_PARTS.values(), ids=RIGHT_PARTS)
def test_f52_what_is_legal_or_harmless_is_taken(rig: Rig, action: Action) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", action, times=1)
    assert rig.client(server).blobs.range(repository_of(server), blob, 1000, 2000) == CONTENT[1000:2000]


def test_f53_416_at_the_end_is_not_provoked(rig: Rig) -> None:
    server, blob = serving(rig)
    client = rig.client(server)
    assert client.blobs.range(repository_of(server), blob, SIZE, SIZE) == b""
    assert fetched(client, server, blob) == CONTENT
    assert server.headers("range", "/blobs/") == [None]


@pytest.mark.parametrize("content_range", ["bytes */1", f"bytes */{SIZE}", ""])
def test_f53_416_inside_a_blob_makes_us_take_the_whole(rig: Rig, content_range: str) -> None:
    server, blob = serving(rig)
    refused = Response(416, (("Content-Range", content_range),))
    server.on("GET", "/blobs/", changed(lambda right: refused if right.status == 206 else right))
    assert rig.client(server).blobs.range(repository_of(server), blob, 1000, 2000) == CONTENT[1000:2000]


def test_f53_416_for_all_is_an_error(rig: Rig) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", reply(416, headers={"Content-Range": "bytes */1"}))
    client = rig.client(server)
    with pytest.raises(ProtocolViolation):
        client.blobs.range(repository_of(server), blob, 1000, 2000)
    with pytest.raises(ProtocolViolation):
        fetched(client, server, blob)
    assert len(server.paths("/blobs/")) <= 4


def capped(connection: Connection) -> bool:
    """Answer a range with 64 KiB of it at most, as RFC 9110 allows."""
    right = connection.right()
    if right.status != 206:
        return connection.answer(right)
    first = int(connection.seen.headers["range"].removeprefix("bytes=").partition("-")[0])
    body = right.body[: 64 << 10]
    content_range = f"bytes {first}-{first + len(body) - 1}/{SIZE}"
    return connection.answer(Response(206, (("Content-Range", content_range),), body))


def test_a_server_that_answers_ranges_with_less_is_asked_on_at_once(rig: Rig) -> None:
    """It was taken for a transfer that breaks off: after 12 s of waiting, the file could not be read."""
    server, blob = serving(rig)
    server.on("GET", "/blobs/", capped)
    client = rig.client(server)
    assert client.blobs.range(repository_of(server), blob, 1000, 500_000) == CONTENT[1000:500_000]
    assert len(server.paths("/blobs/")) == -(-499_000 // (64 << 10))
    assert rig.stats.value("registry.retries") == 0


@pytest.mark.parametrize(
    "headers",
    [{"Content-Range": f"bytes 1001-2000/{SIZE}"}, {"Content-Type": "multipart/byteranges; boundary=x"}],
    ids=["moved by a byte", "multipart"],
)
def test_a_server_that_gets_ranges_wrong_is_taken_for_one_that_gives_none(rig: Rig, headers: dict[str, str]) -> None:
    """A layer that is read in parts is fetched whole then; it was unreadable for good."""
    server, blob = serving(rig)
    server.on("GET", "/blobs/", reply(206, CONTENT[1000:2000], headers=headers))
    client = rig.client(server)
    with pytest.raises(RangesRefused):
        client.blobs.range(repository_of(server), blob, 1000, 2000, parts_only=True)
    assert len(server.paths("/blobs/")) == 2


ENCODED = CONTENT[:100_000]
LAYER = gzip.compress(ENCODED)


def encoded(body: bytes, encoding: str = "gzip") -> Action:
    return reply(200, body, {"Content-Encoding": encoding})


@pytest.mark.parametrize(
    ("blob", "action"),
    [
        (LAYER, encoded(LAYER)),
        (LAYER, encoded(LAYER, "x-gzip")),
        (LAYER, encoded(gzip.compress(LAYER))),
        (ENCODED, encoded(gzip.compress(ENCODED))),
        (ENCODED, encoded(zlib.compress(ENCODED), "deflate")),
        (ENCODED, encoded(ENCODED)),
        (b"a" * SIZE, encoded(gzip.compress(b"a" * SIZE))),
        (LAYER, raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + LAYER)),
    ],
    ids=["lying", "x-gzip", "twice", "transport", "deflate", "not at all", "well", "no length"],
)
def test_f54_content_encoding_never_changes_the_bytes(rig: Rig, blob: bytes, action: Action) -> None:
    server, descriptor = serving(rig, blob)
    server.on("GET", "/blobs/", action)
    assert fetched(rig.client(server), server, descriptor) == blob
    assert set(server.headers("accept-encoding")) == {"identity"}


def test_f54_a_range_with_content_encoding_is_raw(rig: Rig) -> None:
    server, blob = serving(rig, LAYER)
    server.on("GET", "/blobs/", changed(lambda right: right.with_header("Content-Encoding", "gzip")))
    assert rig.client(server).blobs.range(repository_of(server), blob, 100, 200) == LAYER[100:200]


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(bytes(30_000_000), 9, mtime=0),
        b"\x1f\x8b" + bytes(1000),
        gzip.compress(CONTENT, mtime=0)[:-1000],
        b"",
    ],
    ids=["bomb", "junk", "cut", "nothing"],
)
def test_f54_an_encoded_body_that_is_wrong_is_refused_in_bounded_memory(rig: Rig, body: bytes) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", encoded(body))
    with pytest.raises((BadContent, RegistryUnavailable)):
        fetched(rig.client(server), server, blob)


class SignedStorage:
    """An object store whose URLs hold once: their signature is the number of the next request."""

    def __init__(self, refusal: Response) -> None:
        self.refusal = refusal
        self.valid = ""

    def respond(self, seen: object) -> Response:
        path, headers = seen.path, seen.headers  # type: ignore[attr-defined]
        if path.partition("signature=")[2] != self.valid:
            return self.refusal
        return blob_response(CONTENT, str(DIGEST), headers.get("range"))


EXPIRED = {
    "403": Response(403, (), b"<Error><Code>AccessDenied</Code></Error>"),
    "400 ExpiredToken": Response(400, (), b"<Error><Code>ExpiredToken</Code></Error>"),
    "401": Response(401, (("WWW-Authenticate", 'Basic realm="cdn"'),)),
    "404": Response(404),
    "410": Response(410),
}


def redirecting(rig: Rig, storage: FaultServer) -> tuple[FaultServer, Descriptor]:
    """Return a registry that redirects blobs to *storage*, each time with another signature."""
    server, blob = serving(rig, users=dict([USER]))
    numbers = iter(range(1, 1000))

    def go(right: Response) -> Response:
        if right.status not in (200, 206):
            return right
        storage.application.valid = str(next(numbers))  # type: ignore[attr-defined]
        return Response(307, (("Location", f"{storage.url}/b?signature={storage.application.valid}"),))  # type: ignore[attr-defined]

    server.on("GET", "/blobs/", changed(go))
    return server, blob


def test_b10_ranges_reuse_where_a_redirect_led(rig: Rig) -> None:
    storage = rig.server(SignedStorage(EXPIRED["403"]), host="127.0.0.2")
    server, blob = redirecting(rig, storage)
    client = rig.client(server, login=USER)
    for start in range(0, 5000, 1000):
        assert client.blobs.range(repository_of(server), blob, start, start + 10) == CONTENT[start : start + 10]
    assert len(server.paths("/blobs/")) == 1
    assert len(storage.paths()) == 5


@pytest.mark.parametrize("refusal", EXPIRED.values(), ids=EXPIRED)
def test_f55_a_signed_url_that_expired_is_resolved_again(rig: Rig, refusal: Response) -> None:
    storage = rig.server(SignedStorage(refusal), host="127.0.0.2")
    server, blob = redirecting(rig, storage)
    client = rig.client(server, login=USER)
    assert client.blobs.range(repository_of(server), blob, 0, 10) == CONTENT[:10]
    storage.application.valid = "another"  # type: ignore[attr-defined]
    assert client.blobs.range(repository_of(server), blob, 10, 20) == CONTENT[10:20]
    assert saw_no_secret(storage, USER[1], basic(*USER))


@pytest.mark.parametrize("refusal", EXPIRED.values(), ids=EXPIRED)
def test_f55_a_storage_that_always_refuses_is_an_error_after_two_attempts(rig: Rig, refusal: Response) -> None:
    storage = rig.server(host="127.0.0.2")
    storage.on("GET", ".", changed(lambda _right: refusal))
    server, blob = serving(rig, users=dict([USER]))
    location = f"{storage.url}/b?signature=query-secret"
    go = Response(307, (("Location", location),))
    server.on("GET", "/blobs/", changed(lambda right: go if right.status == 200 else right))
    with pytest.raises(ProtocolViolation) as caught:
        fetched(rig.client(server, login=USER), server, blob)
    assert "query-secret" not in str(caught.value)
    assert len(storage.paths()) == 2
    assert saw_no_secret(storage, USER[1])


def test_f56_an_xml_error_with_200_is_refused(rig: Rig) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", reply(200, "<Error><Code>SlowDown</Code></Error>", {"Content-Type": "text/xml"}))
    with pytest.raises(BadContent):
        fetched(rig.client(server), server, blob)


def test_f57_a_blob_that_is_not_there_is_not_found(rig: Rig) -> None:
    server, blob = serving(rig)
    absent = Descriptor(blob.media_type, Digest.of(b"other"), 5)
    client = rig.client(server)
    with pytest.raises(NotFound):
        fetched(client, server, absent)
    with pytest.raises(NotFound):
        client.blobs.range(repository_of(server), absent, 0, 5)
    assert fetched(client, server, blob) == CONTENT


def test_f58_an_empty_body_for_a_blob_with_bytes_is_tried_again_then_refused(rig: Rig) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", reply(200, b""), times=1)
    client = rig.client(server)
    assert fetched(client, server, blob) == CONTENT
    server.on("GET", "/blobs/", reply(200, b""))
    with pytest.raises(BadContent):
        fetched(client, server, blob)


def test_f43_a_descriptor_with_another_size_is_refused_before_a_byte_is_read(rig: Rig) -> None:
    server, blob = serving(rig)
    for size in (SIZE - 1, SIZE + 1, 2**62):
        with pytest.raises(BadContent):
            fetched(rig.client(server), server, Descriptor(blob.media_type, blob.digest, size))


def test_known_bytes_need_no_request(rig: Rig) -> None:
    server, _blob = serving(rig)
    client, repository = rig.client(server), repository_of(server)
    empty_object = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)
    embedded = Descriptor("text/plain", Digest.of(b"text"), 4, content=b"text")
    nothing = Descriptor("text/plain", Digest.of(b""), 0)
    assert [b"".join(client.blobs.stream(repository, one)) for one in (empty_object, embedded, nothing)] == [
        b"{}",
        b"text",
        b"",
    ]
    assert client.blobs.range(repository, embedded, 1, 3) == b"ex"
    assert server.paths() == []


def test_a_reader_that_stops_gives_its_slot_and_connection_back(rig: Rig) -> None:
    server, blob = serving(rig, CONTENT * 10)
    client = rig.client(server)
    for _ in range(20):
        chunks = client.blobs.stream(repository_of(server), blob)
        next(iter(chunks))
        chunks.close()
    assert fetched(client, server, blob) == CONTENT * 10
