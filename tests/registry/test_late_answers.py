"""Answers that begin late, because a registry scans, spools or builds first, and peers that are gone without a word."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap

import pytest

from regfs.errors import RegistryTimeout, RegistryUnavailable
from regfs.model.manifest import Descriptor
from regfs.registry.http.sockets import Pace, WatchedSocket
from tests.support.client_rig import Rig, repository_of
from tests.support.fault_server import Action, Connection, FaultServer, silence
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import REPOSITORY_ROOT

CONTENT = os.urandom(100_000)
LATE_S = 0.6
# What begins late is late for all but the time that the user allows.
PACE = Pace(connect_s=30.0, answer_s=0.3, longest_s=60.0, idle_s=0.3, window_s=0.3)


def late(*, headers_first: bool) -> Action:
    """Answer what is right, after a while; its headers at once if *headers_first*."""

    def act(connection: Connection) -> bool:
        response = connection.right()
        parts = [response.head(), response.body] if connection.seen.method != "HEAD" else [response.head(), b""]
        if headers_first:
            connection.send(parts.pop(0))
        if connection.stopped.wait(LATE_S):
            return False
        connection.send(b"".join(parts))
        return True

    return act


def serving(rig: Rig) -> tuple[FaultServer, Descriptor]:
    application = MemoryRegistry()
    blob = application.add_blob("demo/app", CONTENT)
    application.add_image("demo/app", "v1")
    return rig.server(application), blob


@pytest.mark.parametrize("headers_first", [True, False])
def test_a_blob_that_begins_late_is_waited_for_at_the_first_try(rig: Rig, headers_first: bool) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", late(headers_first=headers_first))
    assert b"".join(rig.client(server, pace=PACE).blobs.stream(repository_of(server), blob)) == CONTENT
    assert len(server.paths("/blobs/")) == 1


@pytest.mark.parametrize("headers_first", [True, False])
def test_a_document_that_begins_late_is_asked_for_once_more_and_waited_for(rig: Rig, headers_first: bool) -> None:
    server, _blob = serving(rig)
    server.on("GET", "/tags/", late(headers_first=headers_first))
    server.on("HEAD", "/manifests/", late(headers_first=False))
    client = rig.client(server, pace=PACE)
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert client.manifests.resolve(repository_of(server), "v1").size > 0
    assert [len(server.paths(kind)) for kind in ("/tags/", "HEAD")] == [2, 2]


def test_a_document_of_one_server_of_many_that_hangs_comes_from_another_soon(rig: Rig) -> None:
    server, _blob = serving(rig)
    server.on("GET", "/tags/", silence, times=1)
    assert rig.client(server, pace=PACE).listing.tags(repository_of(server)) == ["v1"]


def test_a_blob_that_never_begins_is_given_up_after_the_time_that_the_user_allows(rig: Rig) -> None:
    server, blob = serving(rig)
    server.on("GET", "/blobs/", silence)
    with pytest.raises(RegistryTimeout):
        list(rig.client(server, pace=PACE._replace(longest_s=0.5)).blobs.stream(repository_of(server), blob))
    assert len(server.paths("/blobs/")) == 1


def test_a_blob_that_stops_again_and_again_at_the_same_byte_is_given_up(rig: Rig) -> None:
    server, blob = serving(rig)

    def stall(connection: Connection) -> bool:
        response = connection.right()
        connection.send(response.head() + response.body[:1000] * ("range" not in connection.seen.headers))
        return silence(connection)

    server.on("GET", "/blobs/", stall)
    with pytest.raises(RegistryTimeout):
        list(
            rig.client(server, pace=PACE._replace(longest_s=0.3, idle_s=0.15)).blobs.stream(repository_of(server), blob)
        )


def test_a_silent_connection_is_probed_by_the_kernel() -> None:
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        WatchedSocket.over(socket.create_connection(listener.getsockname()), Pace(vanished_s=30.0)) as watched,
    ):
        assert watched.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle_s, every_s, probes = (watched.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        assert idle_s + every_s * probes <= 30


# Runs in a network of its own, whose only wire is cut once the request has arrived.
VANISHING = """
    import socket, subprocess, threading
    from regfs.process.waiting.deadline import Deadline, under
    from regfs.registry.http.trust import Tls
    from regfs.registry.hosts.certificates import system_authorities
    from regfs.registry.http.messages import Request
    from regfs.registry.http.host_slots import HostSlots
    from regfs.registry.http.sockets import Pace
    from regfs.registry.http.transport import Transport
    from regfs.telemetry.stats import Stats

    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    listener = socket.create_server(("127.0.0.1", 0))

    def vanish():
        connection, _ = listener.accept()
        connection.recv(4096)
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        threading.Event().wait()

    threading.Thread(target=vanish, daemon=True).start()
    transport = Transport(
        Stats(), user_agent="test", authorities=system_authorities({}), slots=HostSlots(documents=1, transfers=1),
        pace=Pace(vanished_s=2.0, answer_s=500.0, longest_s=500.0),
    )
    url = "http://127.0.0.1:%d/v2/" % listener.getsockname()[1]
    with under(Deadline(500.0)):
        try:
            transport.send(Request("GET", url))
        except Exception as error:
            print(type(error).__name__, error)
"""


def test_a_peer_that_vanishes_is_noticed_long_before_the_deadline() -> None:
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", textwrap.dedent(VANISHING)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(RegistryUnavailable.__name__), done.stdout
