"""Workers are forked by one process; what happens to it costs no more than a new start."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regfs.errors import WorkerKilled
from regfs.images.workers import forked_process
from regfs.images.workers.fork_server import LARGEST_JOB, READY
from regfs.images.workers.forked_process import forked
from regfs.images.workers.ingest import ingest_layer
from regfs.store.layers.layer_store import LayerStore
from tests.layers.ingested import in_chunks, named
from tests.support.images import file, layer_of_tar, tar_of
from tests.support.processes import children, fork_servers

BUILT = layer_of_tar(tar_of(file("big", os.urandom(3_000_000))), compression="none")
IDLE = """
import socket, sys
from regfs.images.workers import fork_server
fork_server._IDLE_S = 0.1
fork_server.serve(socket.socket(fileno=int(sys.argv[1])))
"""


def ingest(root: Path, chunks: Iterator[bytes] | None = None) -> None:
    ingest_layer(chunks or in_chunks(BUILT.blob), **named(BUILT), store=LayerStore(root))
    assert LayerStore(root).is_ingested(BUILT.diff_id)


def test_workers_have_one_fork_server(tmp_path: Path) -> None:
    ingest(tmp_path / "a")
    (server,) = fork_servers()
    ingest(tmp_path / "b")
    assert fork_servers() == {server}


def test_a_fork_server_that_was_killed_is_started_again(tmp_path: Path) -> None:
    ingest(tmp_path / "a")
    (server,) = fork_servers()
    os.kill(server, signal.SIGKILL)
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)  # while it dies, it would take a job with it
    ingest(tmp_path / "b")
    assert len(fork_servers() - {server}) == 1


def test_a_job_that_notices_late_that_its_fork_server_was_killed_leaves_the_next_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two jobs of a killed fork server the later one ended the server that did the other one's again."""
    begun, is_handed_over, may_notice = forked_process._begun, threading.Event(), threading.Event()

    def late(status: socket.socket, server: object) -> tuple[int, int]:
        monkeypatch.setattr(forked_process, "_begun", begun)
        is_handed_over.set()
        assert may_notice.wait(60)
        return begun(status, server)  # type: ignore[arg-type]

    ingest(tmp_path / "a")
    (killed,) = fork_servers()
    os.kill(killed, signal.SIGSTOP)
    monkeypatch.setattr(forked_process, "_begun", late)
    with open(os.devnull, "rb") as nothing, ThreadPoolExecutor(1) as pool:
        job = pool.submit(forked, "json", {}, stdin=nothing.fileno(), memory_fd=None)
        assert is_handed_over.wait(60)
        os.kill(killed, signal.SIGKILL)
        os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
        ingest(tmp_path / "b")
        (following,) = fork_servers() - {killed}
        may_notice.set()
        with pytest.raises(WorkerKilled):
            job.result(60)
    ingest(tmp_path / "c")
    assert following in fork_servers()


def test_a_worker_whose_fork_server_is_killed_ends_its_work(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield BUILT.blob[:1000]
        (server,) = fork_servers()
        os.kill(server, signal.SIGKILL)
        yield BUILT.blob[1000:]

    ingest(tmp_path, chunks())


def test_workers_are_started_one_by_one_where_there_is_no_fork_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children(), fork_servers()
    monkeypatch.setattr(forked_process, "_server", None)
    monkeypatch.setattr(forked_process, "_refused_until_s", math.inf)
    seen: set[int] = set()

    def chunks() -> Iterator[bytes]:
        seen.update(children() - before[0])
        yield BUILT.blob

    ingest(tmp_path, chunks())
    assert len(seen) == 1
    assert fork_servers() <= before[1]


def test_a_job_that_no_message_takes_is_left_to_a_process_of_its_own() -> None:
    assert forked("json", {"x": "y" * LARGEST_JOB}, stdin=0, memory_fd=None) is None


def test_a_fork_server_ends_when_nothing_is_to_do_and_refuses_what_comes_then() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        number = str(theirs.fileno())
        with subprocess.Popen([sys.executable, "-c", IDLE, number], pass_fds=(theirs.fileno(),)) as server:
            assert ours.recv(100) == READY
            theirs.close()
            assert server.wait(60) == 0
        with pytest.raises(OSError):
            ours.send(b"job")


def test_a_fork_server_ends_with_its_daemon() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "regfs.images.workers.fork_server", str(theirs.fileno())]
        with subprocess.Popen(command, pass_fds=(theirs.fileno(),)) as server:
            assert ours.recv(100) == READY
            ours.close()
            theirs.close()
            assert server.wait(60) == 0
