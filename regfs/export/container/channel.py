"""Messages between the supervisor and process 1, over a socket that carries open files.

    to the supervisor     {"kind": "unshared"}                  new namespaces are entered; the user ids have no map yet
                          {"kind": "fuse"} + 1 descriptor       a FUSE connection that waits to be served
                          {"kind": "terminal"} + 1 descriptor   the other side of the program's terminal
                          {"kind": "note", "text": …}           to be printed
                          {"kind": "error", "text": …}          to be printed; the exit status follows
    to process 1          {"kind": "mapped"}                    the user ids have their map
                          {"kind": "begin"} + 1 or 2 descriptors  the plan; and a mount of the image's files
                          {"kind": "signal", "number": …}       for the program

The end of one side is an end of file for the other. Thread rule: one thread on each side.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_MESSAGE_MAX = 65536
_TEXT_MAX = 8192
_MOST_DESCRIPTORS = 4


class Message(NamedTuple):
    """A message; *kind* is empty where the other side has ended. The receiver closes *descriptors*."""

    kind: str = ""
    values: Mapping[str, object] = {}
    descriptors: tuple[int, ...] = ()


class Channel:
    """One side of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """Return the descriptor, for select(2) and poll(2)."""
        return self._connection.fileno()

    def send(self, kind: str, *, descriptors: Sequence[int] = (), **values: object) -> None:
        """Send a message. Does nothing where the other side has ended; receive() reports that."""
        if "text" in values:
            values["text"] = str(values["text"])[:_TEXT_MAX]
        try:
            socket.send_fds(self._connection, [json.dumps({"kind": kind, **values}).encode()], list(descriptors))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def receive(self) -> Message:
        """Wait for the next message and return it."""
        try:
            content, descriptors, _, _ = socket.recv_fds(self._connection, _MESSAGE_MAX, _MOST_DESCRIPTORS)
        except ConnectionResetError:
            return Message()
        if not content:
            return Message()
        values = json.loads(content)
        return Message(values.pop("kind"), values, tuple(descriptors))

    def close(self) -> None:
        """End the connection from this side."""
        self._connection.close()


def channel_pair() -> tuple[Channel, Channel]:
    """Return the two sides of a new channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), Channel(theirs)
