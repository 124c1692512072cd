"""systemd as the holder of a mount: the file descriptor store of a service, for `regfs -f` in a unit of Type=notify.

    FDSTORE=1 FDNAME=connection         with the descriptor of /dev/fuse, to $NOTIFY_SOCKET; kept over restarts
    FDSTORE=1 FDNAME=state              with the memory that daemons leave to each other
    $LISTEN_FDS $LISTEN_FDNAMES $LISTEN_PID      the two come back, from descriptor 3 on, when the unit starts again
    FDSTOREREMOVE=1 FDNAME=…            at the end of the mount

Without FileDescriptorStoreMax=2 in the unit systemd keeps nothing, and the mount ends with its daemon. Sources:
sd_notify(3), sd_listen_fds(3), systemd's docs/FILE_DESCRIPTOR_STORE.md. Used by resume.py and serve.py. Any thread;
stored() once, before other descriptors are opened.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from regfs.errors import MountFailure
from regfs.mount.kernel.kept.state_file import StateFile
from regfs.mount.kernel.session import KernelSession

log = logging.getLogger(__name__)

_FIRST = 3
_CONNECTION, _STATE = "connection", "state"


class Stored(NamedTuple):
    """What the last daemon of the unit has left: the descriptor of /dev/fuse, and the state of the mount."""

    connection: int
    state: StateFile

    def end(self, environment: Mapping[str, str]) -> None:
        """Close the descriptors, and have the service manager close its own: the mount is gone."""
        self.state.end()
        self.state.memory.close()
        for descriptor in (self.state.descriptor, self.connection):
            os.close(descriptor)
        _forget(_address(environment))


def has_store(environment: Mapping[str, str]) -> bool:
    """Tell whether a service manager listens that may have a descriptor store."""
    return bool(environment.get("NOTIFY_SOCKET"))


def stored(environment: Mapping[str, str]) -> Stored | None:
    """Return what was stored for this process; None where there is nothing, or the mount was ended on purpose."""
    descriptors = _given(environment)
    state = None
    try:
        state = StateFile(descriptors[_STATE])
    except (KeyError, MountFailure) as missing:
        log.debug("nothing is taken over: %s", missing)
    if state is None or state.has_ended or _CONNECTION not in descriptors:
        for descriptor in descriptors.values():
            os.close(descriptor)
        if descriptors:
            _forget(_address(environment))
        return None
    return Stored(descriptors[_CONNECTION], state)


def _given(environment: Mapping[str, str]) -> dict[str, int]:
    """Return the passed descriptors by their names; of several with one name, one."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    number = environment.get("LISTEN_FDS", "")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, int] = {}
    for descriptor in range(_FIRST, _FIRST + (int(number) if number.isascii() and number.isdigit() else 0)):
        name = names[descriptor - _FIRST] if descriptor - _FIRST < len(names) else ""
        if name in found or name not in (_CONNECTION, _STATE):
            with suppress(OSError):
                os.close(descriptor)
            continue
        os.set_inheritable(descriptor, False)
        found[name] = descriptor
    return found


class StoredHolding:
    """The mount of *session*, held by the service manager that *environment* names. As Holding, for serve.py."""

    def __init__(
        self,
        session: KernelSession,
        state: StateFile,
        *,
        description: str,
        environment: Mapping[str, str],
        is_stored: bool,
    ) -> None:
        """*description*: from description_as_text(). *is_stored*: an earlier daemon has stored the descriptors."""
        self._is_stored = is_stored
        self.session = session
        self._state = state
        self._description = description
        self._address = _address(environment)

    def start(self, _on_hand_over: Callable[[], None]) -> None:
        """Store the descriptors. They stay in the store however often the unit restarts."""
        try:
            self._state.describe(self._description)
        except MountFailure as failure:
            log.warning("the mount ends with this daemon: %s", failure)
            return
        if self._is_stored:
            return
        _send(self._address, f"FDSTORE=1\nFDNAME={_STATE}", self._state.descriptor)
        _send(self._address, f"FDSTORE=1\nFDNAME={_CONNECTION}", self.session.connection)

    def stop(self) -> None:
        """Note that the mount ends on purpose."""
        self._state.end()
        _forget(self._address)

    def hand_over(self) -> None:
        """Do nothing: the service manager ends this daemon by a signal, and asks no daemon to hand over."""


def _address(environment: Mapping[str, str]) -> str:
    address = environment.get("NOTIFY_SOCKET", "")
    return f"\0{address[1:]}" if address.startswith("@") else address


def _forget(address: str) -> None:
    for name in (_CONNECTION, _STATE):
        _send(address, f"FDSTOREREMOVE=1\nFDNAME={name}")


def _send(address: str, text: str, *descriptors: int) -> None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(address)
            socket.send_fds(sender, [text.encode()], list(descriptors))
    except (OSError, ValueError) as error:
        log.debug("the service manager could not be asked to keep the mount: %s", error)
