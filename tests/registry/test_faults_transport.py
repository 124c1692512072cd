"""Connections and answers that go wrong: F17 to F21, F23 and F24 of the fault catalogue, at the client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from regfs.errors import (
    AccessDenied,
    BadContent,
    Interrupted,
    Offline,
    RegistryTimeout,
    RegistryUnavailable,
    WouldBlock,
)
from regfs.model.names import RepositoryName
from regfs.process.waiting.deadline import NON_BLOCKING, Deadline, under
from regfs.registry.hosts.endpoints import Hosts
from regfs.registry.http.kept_connections import SILENT_S, KeptConnections
from regfs.registry.http.sockets import Pace
from tests.registry.transport_rig import (
    CONTENT,
    STRANGER,
    TAGS,
    USER,
    fetched,
    loopback_client,
    registry,
    with_blob,
)
from tests.support.client_rig import (
    ALONE,
    IMPATIENT,
    LESS_IMPATIENT,
    PACE,
    RETRY,
    Rig,
    basic,
    client_of,
    repository_of,
)
from tests.support.fault_server import (
    Connection,
    close,
    drip,
    raw,
    reply,
    reset,
    silence,
)


def test_f17_a_kept_connection_that_is_reset_is_replaced_silently(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    client = rig.client(server, retry=type(RETRY)(attempts=1))
    client.listing.tags(repository_of(server))
    server.on("GET", "/tags/", reset(), times=1)
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert rig.stats.value("registry.retries") == 0


def test_connections_are_kept(rig: Rig) -> None:
    server, blob = with_blob(rig)
    client = rig.client(server)
    for start in range(0, 50_000, 10_000):
        client.listing.tags(repository_of(server))
        client.manifests.resolve(repository_of(server), "v1")
        client.blobs.range(repository_of(server), blob, start, start + 5000)
    fetched(client, server, blob)
    assert server.connections == 1


def test_kept_connections_that_a_suspend_or_a_middlebox_dropped_cost_one_wait_and_no_read(rig: Rig) -> None:
    """Each of them was waited for, as long as a registry gets for its answer."""
    server, _blob = with_blob(rig)
    together = threading.Barrier(3)

    def at_once(connection: Connection) -> bool:
        together.wait(60)
        return connection.answer(connection.right())

    server.on("GET", "/tags/", at_once, times=3)
    client = rig.client(server, pace=PACE._replace(answer_s=0.5))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(client.listing.tags, [repository_of(server)] * 3))
    assert server.connections == 3
    dropped = []

    def lost_on_old_connections(connection: Connection) -> bool:
        if connection.seen.connection > 3:
            return connection.answer(connection.right())
        dropped.append(connection.seen.connection)
        return silence(connection)

    server.on("GET", "/tags/", lost_on_old_connections)
    assert client.listing.tags(repository_of(server)) == ["v1"]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(client.listing.tags, [repository_of(server)] * 3)) == [["v1"]] * 3
    assert len(dropped) == 1


def test_connections_that_were_silent_for_a_minute_are_not_used_again() -> None:
    now = [1000.0]
    kept = KeptConnections(clock=lambda: now[0])
    answered_s = kept.now_s()
    now[0] += SILENT_S - 1
    assert kept.is_trusted("a", answered_s)
    now[0] += 1
    assert not kept.is_trusted("a", answered_s)
    assert kept.is_trusted("a", None)


def test_a_connection_that_hangs_is_no_reason_to_distrust_newer_ones_or_another_host() -> None:
    now = [1000.0]
    kept = KeptConnections(clock=lambda: now[0])
    old_s = kept.now_s()
    kept.distrust("a")
    assert not kept.is_trusted("a", old_s)
    assert kept.is_trusted("b", old_s)
    now[0] += 0.001
    assert kept.is_trusted("a", kept.now_s())


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HANGING = {
    "silence": silence,
    "header drip": drip(b"HTTP/1.1 200 OK\r\n" + b"X-Header: yes\r\n" * 1000),
    "endless headers": drip(b"HTTP/1.1 200 OK\r\nX-Header: " + b"y" * 10000),
    "body drip": drip(HEAD + b"Content-Length: 1000\r\n\r\n" + b" " * 1000),
    "chunk drip": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 1000),
}


@pytest.mark.parametrize("action", HANGING.values(), ids=HANGING)
def test_f18_a_registry_that_hangs_is_given_up(rig: Rig, action: object) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", action)  # type: ignore[arg-type]
    with pytest.raises(RegistryTimeout):
        rig.client(server, pace=IMPATIENT).listing.tags(repository_of(server))


@pytest.mark.parametrize("action", HANGING.values(), ids=HANGING)
def test_f18_the_callers_deadline_ends_a_wait_of_any_kind(rig: Rig, action: object) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", action)  # type: ignore[arg-type]
    with under(Deadline(0.3)), pytest.raises(RegistryTimeout):
        rig.client(server, pace=Pace()).listing.tags(repository_of(server))


def test_f18_a_deadline_does_not_let_others_take_the_host_for_dead(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", silence, times=1)
    client = rig.client(server)
    with under(Deadline(0.2)), pytest.raises(RegistryTimeout):
        client.listing.tags(repository_of(server))
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_f18_a_stalled_tls_greeting_and_a_full_backlog_are_given_up(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        rig.hosts_toml(address, f'server = "https://{address}"')
        client = client_of(
            Hosts(hosts_directories=[rig.directory / "hosts"]),
            STRANGER,
            rig.stats,
            pace=IMPATIENT,
            retry=RETRY,
        )
        with pytest.raises(RegistryTimeout):
            client.listing.tags(RepositoryName(address, "demo/app"))


def test_f18_a_body_that_stops_in_the_middle_of_a_blob_is_resumed(rig: Rig) -> None:
    server, blob = with_blob(rig)

    def stall(connection: Connection) -> bool:
        response = connection.right()
        connection.send(response.head() + response.body[:100_000])
        return silence(connection)

    server.on("GET", "/blobs/", stall, times=1)
    assert fetched(rig.client(server, pace=LESS_IMPATIENT._replace(idle_s=1.5)), server, blob) == CONTENT
    # Each of them once, and more often where a busy machine has answered late.
    assert set(server.headers("range", "/blobs/")) == {None, "bytes=100000-255999"}


def test_interruption_ends_a_read_that_waits(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    deadline = Deadline(60)

    def interrupt(connection: Connection) -> bool:
        deadline.cancel()
        return silence(connection)

    server.on("GET", "/tags/", interrupt)
    with under(deadline), pytest.raises(Interrupted):
        rig.client(server).listing.tags(repository_of(server))


def test_a_thread_that_may_not_wait_sends_nothing(rig: Rig) -> None:
    server, blob = with_blob(rig)
    client = rig.client(server, login=USER)
    with under(NON_BLOCKING):
        with pytest.raises(WouldBlock):
            client.manifests.resolve(repository_of(server), "v1")
        with pytest.raises(WouldBlock):
            fetched(client, server, blob)
    assert server.connections == 0


def test_offline_sends_nothing(rig: Rig) -> None:
    server, blob = with_blob(rig)
    client = rig.client(server, offline=True)
    with pytest.raises(Offline, match="--offline"):
        client.listing.tags(repository_of(server))
    with pytest.raises(Offline):
        fetched(client, server, blob)
    assert server.connections == 0


GARBAGE = {
    "150 headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 150 + b"\r\n",
    "70 KB header": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
    "status line": b"HTTP/1.1 twohundred OK\r\n\r\n",
    "other protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "zeros": bytes(1000),
    "number": b"HTTP/1.1 99999 OK\r\n\r\n",
    "version": b"ICY 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_f19_an_answer_that_is_not_http_is_no_answer(rig: Rig, content: bytes) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", raw(content))
    with pytest.raises(BadContent):
        rig.client(server).listing.tags(repository_of(server))


LENGTHS = {
    "twice": "Content-Length: 5\r\nContent-Length: 9\r\n",
    "list": "Content-Length: 5, 9\r\n",
    "negative": "Content-Length: -7\r\n",
    "word": "Content-Length: abc\r\n",
    "chunked too": "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
    "underscore": "Content-Length: 1_5\r\n",
    "arabic digits": "Content-Length: \xd9\xa3\r\n",
    "plus": "Content-Length: +15\r\n",
}


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_f20_a_content_length_without_sense_is_refused(rig: Rig, length: str) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", raw(b"HTTP/1.1 200 OK\r\n" + length.encode("latin-1") + b'\r\n{"tags":["v1"]}'))
    with pytest.raises(BadContent):
        rig.client(server).listing.tags(repository_of(server))


def test_f21_bytes_after_a_body_are_not_the_next_answer(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    poison = TAGS.replace(b"v1", b"xx")

    def answer_twice(connection: Connection) -> bool:
        connection.send(TAGS + poison)
        return True

    server.on("GET", "/tags/", answer_twice, times=1)
    client = rig.client(server)
    assert [client.listing.tags(repository_of(server)) for _ in range(3)] == [["v1"]] * 3


def test_loopback_is_asked_by_http_where_it_speaks_no_tls_and_before_any_secret_is_sent(rig: Rig) -> None:
    server = rig.server(registry(users=dict([USER])))
    rig.write_logins({server.address: USER})
    client = loopback_client(rig)
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert server.headers("authorization") == [None, basic(*USER), basic(*USER)]


def test_loopback_where_nothing_listens_is_unavailable_and_may_come_back(rig: Rig) -> None:
    server = rig.server(registry(), host=ALONE)
    server.stop()
    now = [0.0]
    client = client_of(Hosts(), STRANGER, rig.stats, retry=RETRY, pace=PACE, clock=lambda: now[0])
    for _ in range(2):
        with pytest.raises(RegistryUnavailable, match="refused"):
            client.listing.tags(repository_of(server))
    now[0] = 100.0
    rig.server(server.application, host=ALONE, port=int(server.address.rpartition(":")[2]))
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_loopback_that_is_back_is_asked_at_once_when_its_failures_are_forgotten(rig: Rig) -> None:
    server = rig.server(registry(), host=ALONE)
    server.stop()
    client = client_of(Hosts(), STRANGER, rig.stats, retry=RETRY, pace=PACE, clock=lambda: 0.0)
    with pytest.raises(RegistryUnavailable, match="refused"):
        client.listing.tags(repository_of(server))
    rig.server(server.application, host=ALONE, port=int(server.address.rpartition(":")[2]))
    client.forget_failures()
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_f23_a_name_that_cannot_be_resolved_is_unavailable_and_asked_again_later(rig: Rig) -> None:
    repository = RepositoryName("no-such-registry.invalid", "demo/app")
    client = loopback_client(rig)
    with pytest.raises(RegistryUnavailable, match="cannot be resolved"):
        client.listing.tags(repository)
    with pytest.raises(RegistryUnavailable, match=r"failed \d+ s ago; next attempt in \d+ s"):
        client.listing.tags(repository)
    assert rig.stats.value("registry.retries") == 0


def test_f23_a_refused_connection_is_unavailable_at_once(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    server.stop()
    with pytest.raises(RegistryUnavailable, match="refused"):
        rig.client(server).listing.tags(repository_of(server))
    assert rig.stats.value("registry.retries") == 0


@pytest.mark.parametrize("status", [103, 201, 202, 203, 204, 205, 299, 304, 999, 600])
@pytest.mark.parametrize("what", ["tags", "manifests", "blobs"])
def test_f24_a_success_of_another_kind_is_none(rig: Rig, status: int, what: str) -> None:
    server, blob = with_blob(rig)
    server.on("*", f"/{what}/", reply(status))
    client = rig.client(server)
    calls: dict[str, Callable[[], object]] = {
        "tags": lambda: client.listing.tags(repository_of(server)),
        "manifests": lambda: client.manifests.fetch(repository_of(server), "v1"),
        "blobs": lambda: fetched(client, server, blob),
    }
    with pytest.raises((BadContent, RegistryUnavailable)):
        calls[what]()


def test_f24_100_continue_before_an_answer_is_skipped(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", raw(b"HTTP/1.1 100 Continue\r\n\r\n" + TAGS))
    assert rig.client(server).listing.tags(repository_of(server)) == ["v1"]


def test_a_connection_that_is_closed_before_any_answer_is_tried_again(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", close, times=2)
    assert rig.client(server).listing.tags(repository_of(server)) == ["v1"]


def test_a_host_gets_no_more_requests_at_once_than_it_has_slots(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    lock, present, most, eight = threading.Lock(), [0], [0], threading.Barrier(8)

    def counted(connection: Connection) -> bool:
        with lock:
            present[0] += 1
            most[0] = max(most[0], present[0])
        eight.wait(60)  # all eight slots are in use at once, or this breaks
        with lock:
            present[0] -= 1
        return connection.answer(connection.right())

    server.on("GET", "/tags/", counted)
    client = rig.client(server)
    threads = [threading.Thread(target=client.listing.tags, args=(repository_of(server),)) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 8


def test_a_proxy_of_the_environment_is_not_used_for_loopback(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = rig.server()
    monkeypatch.setenv("http_proxy", proxy.url)
    server, _blob = with_blob(rig)
    assert rig.client(server).listing.tags(repository_of(server)) == ["v1"]
    assert proxy.paths() == []


def test_a_proxy_of_the_environment_is_asked_for_all_else(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = rig.server()
    proxy.on("GET", "registry.invalid", raw(TAGS))
    monkeypatch.setenv("http_proxy", proxy.url)
    rig.hosts_toml("registry.invalid", 'server = "http://registry.invalid"')
    client = client_of(
        Hosts(hosts_directories=[rig.directory / "hosts"]),
        STRANGER,
        rig.stats,
        retry=RETRY,
    )
    assert client.listing.tags(RepositoryName("registry.invalid", "demo/app")) == ["v1"]
    assert proxy.paths() == ["GET http://registry.invalid/v2/demo/app/tags/list"]


def test_a_proxy_that_wants_credentials_is_named(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = rig.server()
    proxy.on("CONNECT", ".", reply(407))
    monkeypatch.setenv("https_proxy", proxy.url)
    client = client_of(Hosts(), STRANGER, rig.stats, retry=RETRY)
    with pytest.raises(AccessDenied, match="https_proxy"):
        client.listing.tags(RepositoryName("registry.invalid", "demo/app"))
