"""Directories of a mount that are in use, as far as /proc tells: working and root directories, and mounts below.

    /proc/PID/mountinfo      mounts whose mount point lies in this one, and bind mounts of a part of it, in every
                             namespace; for fusepy the lower directories of overlays (`podman run --rootfs DIR:O`)
    /proc/PID/cwd, root      working and root directories

Needed only when a tag has moved, is refused or is gone: the kernel drops such mounts and directories together with the
name above them (tree/tags_in_use.py). Only /proc is read, since a request to its own mount would make the daemon wait
for itself. Not seen: processes that an ordinary user's daemon may not look at (of other users, possible only with
--allow-other), processes of other PID namespaces, a thread that has left its process's directories or mount namespace,
a namespace without processes, and lower directories that were named by a relative path. Used by daemon/session.py. Any
thread.
"""

from __future__ import annotations

import logging
import os
import re
import time
from typing import NamedTuple

log = logging.getLogger(__name__)

_DEADLINE_S = 2.0
_OCTAL = re.compile(rb"\\([0-7]{3})")
_DELETED_ROOT = b"//deleted"
_DELETED_LINK = b" (deleted)"
_OVERLAY = re.compile(rb" - overlay [^ ]* (.*)")
_LOWER = re.compile(rb"(?:^|,)lowerdir\+?=([^,]*)")
_BETWEEN = re.compile(rb"(?<!\\):")  # a colon in a path has a backslash before it


class _Line(NamedTuple):
    """One line of mountinfo, paths unquoted. *shown* is the directory of the file system that is mounted."""

    number: bytes
    parent: bytes
    device: bytes
    shown: bytes
    mountpoint: bytes


def directories_in_use(device: str, *, overlays: bool = False) -> frozenset[str] | None:
    """Return the directories of the file system *device* ("major:minor") that are in use, as absolute paths in it.

    With *overlays* also those that overlays lie on: the kernel driver's inodes stay for them when a tag moves, but
    fusepy's are paths, so that a running container would see its files change.
    None where /proc could not be read to its end within two seconds. Costs some 20 us a process.
    """
    return _Scan(os.fsencode(device), overlays).run() if device else frozenset()


class _Scan:
    def __init__(self, device: bytes, overlays: bool) -> None:
        self._device = device
        self._overlays = overlays
        self._lower: set[bytes] = set()
        self._used: set[bytes] = set()
        # By mount namespace: where the file system is mounted in it, and which directory of it is shown there.
        self._mounts: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self._seen: set[tuple[bytes, bytes]] = set()
        self._links: list[tuple[bytes, bytes]] = []

    def run(self) -> frozenset[str] | None:
        end = time.monotonic() + _DEADLINE_S
        for entry in os.listdir(b"/proc") if os.path.isdir("/proc") else ():
            if not entry.isdigit():
                continue
            if time.monotonic() > end:
                log.warning("not all processes could be looked at within %g s", _DEADLINE_S)
                return None
            try:
                self._look_at(b"/proc/" + entry)
            except OSError:
                continue  # it has ended, or may not be looked at
        for namespace, link in self._links:
            for mountpoint, shown in self._mounts.get(namespace, ()):
                below = _below(link, mountpoint)
                if below is not None:
                    self._used.add(_join(shown, below))
        # A container's overlay was mounted from another namespace, whose paths it has; which one is unknown.
        for mountpoint, shown in {pair for pairs in self._mounts.values() for pair in pairs} if self._lower else ():
            found = (_below(lower, mountpoint) for lower in self._lower)
            self._used |= {_join(shown, below) for below in found if below is not None}
        return frozenset(map(os.fsdecode, self._used))

    def _look_at(self, process: bytes) -> None:
        namespace, root = os.readlink(process + b"/ns/mnt"), os.readlink(process + b"/root")
        if (namespace, root) not in self._seen:
            self._seen.add((namespace, root))
            with open(process + b"/mountinfo", "rb") as file:
                self._read_mounts(namespace, root, file.read())
        for link in {root, os.readlink(process + b"/cwd")}:
            if not link.endswith(_DELETED_LINK):  # what the kernel has dropped already
                self._links.append((namespace, link))

    def _read_mounts(self, namespace: bytes, root: bytes, mountinfo: bytes) -> None:
        if self._overlays:
            self._lower |= _lower_directories(mountinfo)
        if b" " + self._device + b" " not in mountinfo:
            return
        # Not splitlines: mountinfo quotes a line feed in a path, but no carriage return.
        lines = [_parsed(line) for line in mountinfo.rstrip(b"\n").split(b"\n")]
        ours = {line.number: line for line in lines if line.device == self._device}
        for line in ours.values():
            if not line.shown.endswith(_DELETED_ROOT):
                self._used.add(line.shown)
            # mountinfo gives a mount point from the root directory of the process, a link one from its namespace's.
            self._mounts.setdefault(namespace, []).append((_join(root, line.mountpoint), line.shown))
        for line in lines:
            above = ours.get(line.parent)
            if above is not None and line.number != line.parent:
                below = _below(line.mountpoint, above.mountpoint)
                if below is not None and not line.mountpoint.endswith(_DELETED_ROOT):
                    self._used.add(_join(above.shown, below))


def _lower_directories(mountinfo: bytes) -> set[bytes]:
    """Return the absolute paths of the lower directories of the overlays, as given when they were mounted."""
    options = _OVERLAY.findall(mountinfo)
    lists = [_unquoted(lower) for each in options for lower in _LOWER.findall(each)]
    paths = {path.replace(b"\\:", b":") for each in lists for path in _BETWEEN.split(each)}
    return {path for path in paths if path.startswith(b"/")}


def _parsed(line: bytes) -> _Line:
    number, parent, device, shown, mountpoint = line.split(b" ", 5)[:5]
    return _Line(number, parent, device, _unquoted(shown), _unquoted(mountpoint))


def _unquoted(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field) if b"\\" in field else field


def _below(path: bytes, directory: bytes) -> bytes | None:
    """Return *path* from *directory* on, empty for *directory* itself; None where it is not below."""
    prefix = directory.rstrip(b"/")
    if path.rstrip(b"/") == prefix:
        return b""
    return path[len(prefix) + 1 :] if path.startswith(prefix + b"/") else None


def _join(directory: bytes, below: bytes) -> bytes:
    below = below.strip(b"/")
    return directory.rstrip(b"/") + b"/" + below if below else directory
