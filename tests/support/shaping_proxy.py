"""A TCP proxy in a process of its own that gives each connection so many bytes a second, and each request a delay.

    with ShapingProxy("127.0.0.1:5000", bytes_per_s=60e6, delay_s=0.03) as proxy:
        proxy.address       host:port to be asked instead

It stands for the far end of a line: a CDN gives each connection a rate of its own. With *shared*, all connections
share the rate, as a slow line has it. Used by the benchmark. Threads: two for each connection.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

_BLOCK = 128 * 1024


class ShapingProxy:
    """The proxy's process, listening when this is made."""

    def __init__(self, target: str, *, bytes_per_s: float, delay_s: float, shared: bool = False) -> None:
        command = [sys.executable, "-m", "tests.support.shaping_proxy", target, str(bytes_per_s), str(delay_s)]
        self._process = subprocess.Popen([*command, "shared" if shared else "each"], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


class Pacer:
    """Lets at most so many bytes a second through."""

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._lock = threading.Lock()
        self._free_s = 0.0

    def wait(self, size: int) -> None:
        """Return when *size* bytes more may be sent. What was not used while nothing was sent is lost."""
        with self._lock:
            now_s = time.monotonic()
            self._free_s = max(self._free_s, now_s - 0.01) + size / self._rate
            wait_s = self._free_s - now_s
        if wait_s > 0.001:
            time.sleep(wait_s)


class Counter(Pacer):
    """Counts the bytes that are let through, all at once."""

    def __init__(self) -> None:
        super().__init__(float("inf"))
        self.bytes = 0

    def wait(self, size: int) -> None:
        """Count *size* bytes more."""
        with self._lock:
            self.bytes += size


class CountingProxy:
    """A proxy in this process that counts what the target sends, headers included."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._counter = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = "{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def received(self) -> int:
        """The bytes that the target has sent."""
        return self._counter.bytes

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=_serve, args=(client, self._target, self._counter, 0.0), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _copy(source: socket.socket, sink: socket.socket, *, pacer: Pacer | None, delay_s: float) -> None:
    with suppress(OSError):
        while block := source.recv(_BLOCK):
            if delay_s:
                time.sleep(delay_s)
            if pacer is not None:
                pacer.wait(len(block))
            sink.sendall(block)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _serve(client: socket.socket, target: tuple[str, int], pacer: Pacer, delay_s: float) -> None:
    with client, socket.create_connection(target) as server:
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asking = threading.Thread(target=_copy, args=(client, server), kwargs={"pacer": None, "delay_s": delay_s})
        asking.start()
        _copy(server, client, pacer=pacer, delay_s=0.0)
        asking.join()


def main(target: str, bytes_per_s: str, delay_s: str, whose: str) -> None:
    """Listen on a free port of loopback, print its address, and serve until killed."""
    host, _, port = target.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print("{}:{}".format(*listener.getsockname()), flush=True)
    line = Pacer(float(bytes_per_s))
    while True:
        client, _ = listener.accept()
        pacer = line if whose == "shared" else Pacer(float(bytes_per_s))
        threading.Thread(target=_serve, args=(client, (host, int(port)), pacer, float(delay_s)), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
