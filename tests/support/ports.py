"""Ports that stay reserved while no server listens on them.

    port = Reserved("127.0.0.1")        port.number is free for the test's servers, one after the other

A server that stops frees its port, and with three processes of tests the next one that binds port 0 may get it: then
a test that expects "connection refused" meets another test's server, and its own cannot come back. A socket that is
bound and does not listen keeps the port: connections are refused, and a server that binds it by its number, with
SO_REUSEADDR as all servers do, may listen there.
"""

from __future__ import annotations

import socket
import weakref


class Reserved:
    """The port *number* of *host* (0: one that is free), kept for as long as this object lives."""

    def __init__(self, host: str, number: int = 0) -> None:
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, number))
        self.number: int = held.getsockname()[1]
        weakref.finalize(self, held.close)
