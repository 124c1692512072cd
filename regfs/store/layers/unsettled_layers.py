"""Marks layers that are visible and may not be on the disk yet, in case the machine crashes.

    young/<token>      {"boot": <boot id>, "layer": <diff id>}

Syncing a gigabyte takes seconds, and no reader must wait for that. But a file that is renamed before its bytes are on
the disk may be empty or full of zeros after a power cut. So a marker is written and flushed before the renames (one
small fsync), and removed after the whole file system was synced. A crash of regfs in between loses nothing: the kernel
has the bytes. A crash of the machine leaves markers of another boot. Used by layer_store.py. Thread rule: any thread;
several daemons may share the directory.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from regfs.errors import CacheFailure, InvalidName, OutOfThreads
from regfs.model.digest import Digest
from regfs.process.threads import start_thread
from regfs.store.files.cached_files import read_file
from regfs.store.files.failures import failures_of

log = logging.getLogger(__name__)

DropTorn = Callable[[Digest], None]


class UnsettledLayers:
    """The markers in the directory *young*; *boot* is this boot's id."""

    def __init__(self, young: Path, *, boot: str) -> None:
        self._young = young
        self._boot = boot
        self._lock = threading.Lock()
        self._settling = False
        self._settle_again = False

    def mark(self, layer: Digest, *, beside: Path) -> None:
        """Write and flush a marker; *beside* is a path that the ingest owns. Raises CacheFailure."""
        marker = self._young / secrets.token_hex(8)
        names = {"boot": self._boot, "layer": str(layer)}
        with failures_of(marker):
            self._young.mkdir(parents=True, exist_ok=True)
            # Under another name first: a recover() of another process removes what it finds torn.
            _write_durably(beside, json.dumps(names).encode())
            beside.rename(marker)
            _sync_directory(self._young)

    def settle(self) -> None:
        """Wait until all layers that are visible now are on the disk, and remove their markers.

        Takes as long as the disk does. A marker is written after all bytes of its layer, so that a later sync covers
        them. Raises CacheFailure.
        """
        with failures_of(self._young):
            markers = _files_in(self._young)
            if markers:
                _sync_file_system(self._young)
            for marker in markers:
                marker.unlink(missing_ok=True)

    def settle_soon(self) -> None:
        """Start a thread that calls settle(), one at a time; it calls again for layers that became visible meanwhile.

        A verb that ends before it has settled calls settle() itself.
        """
        with self._lock:
            self._settle_again = True
            if self._settling:
                return
            try:
                start_thread(self._settle_while_asked, name="settle")
            except OutOfThreads as shortage:
                log.warning("what was cached lately may not survive a power cut: %s", shortage)
            else:
                self._settling = True

    def _settle_while_asked(self) -> None:
        while True:
            with self._lock:
                if not self._settle_again:
                    self._settling = False
                    return
                self._settle_again = False
            try:
                self.settle()
            except CacheFailure as failure:
                log.warning("what was cached lately may not survive a power cut: %s", failure)

    def recover(self, drop_torn: DropTorn) -> None:
        """Call *drop_torn* for the layers and objects that markers of another boot name. Raises OSError."""
        for marker in _files_in(self._young):
            self._recover_marker(marker, drop_torn)

    def _recover_marker(self, marker: Path, drop_torn: DropTorn) -> None:
        try:
            names = json.loads(read_file(marker))
            boot, layer = names["boot"], Digest.parse(names["layer"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, InvalidName):
            # The marker itself is torn: the renames come after its fsync, so none has happened.
            marker.unlink(missing_ok=True)
            return
        if boot == self._boot:
            return
        drop_torn(layer)
        marker.unlink(missing_ok=True)


def _files_in(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []


def _write_durably(path: Path, content: bytes) -> None:
    """Write a new file and flush it."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """Flush a directory."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _sync_file_system(path: Path) -> None:
    """Flush the file system that *path* is on: syncfs(2), which Python has no name for."""
    import ctypes  # a tenth of a process's start; only the daemon's settling thread needs it

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)
