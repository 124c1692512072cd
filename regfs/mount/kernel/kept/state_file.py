"""The memory that outlives a daemon: a memfd, which the holder of the mount keeps open (daemon/takeover/).

It is sparse: a page costs memory once it is written. Numbers are little-endian, and aligned, so that the processor
writes each at once and a kill leaves the old value or the new one. Layout, version 1:

    0         header: u64 each
              0 "regfsmnt"   8 version   16 life (LIVING, ENDED)   24 restarts   32 INIT flags, bit 63: INIT is settled
              40 slot tried next   48 generation of slots   56 node of the one image   64 node of its rootfs
              72 crashes   80 process id of the holder   88 when the last daemon was lost (ms since 1970)
              96 number of records of open files   104 daemons in a row that ended at once
              112 number of slots of requests that wait
    1 KiB     text: how the last daemon ended (u64 length, bytes)
    2 KiB     text: why the last `regfs restart` failed
    4 KiB     text: the description of the mount (JSON), up to 60 KiB
    64 KiB    read buffers        pending.py
    2 MiB     requests that wait  pending.py
    8 MiB     open files          open_files.py
    72 MiB    node ids            node_records.py
    1 GiB     the end

The holder reads and writes the header and the first two texts, and knows this layout too
(daemon/takeover/holder_process.py).
Thread rule: any thread; each field has one writer.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress

from regfs.errors import MountFailure

VERSION = 1
SIZE = 1 << 30
LIVING, ENDED = 0, 1

READ_BUFFERS_AT = 64 << 10
WAITING_AT = 2 << 20
OPEN_FILES_AT = 8 << 20
NODES_AT = 72 << 20

_MAGIC = int.from_bytes(b"regfsmnt", "little")
_U64 = struct.Struct("<Q")
_MAGIC_AT, _VERSION_AT, _LIFE_AT, _RESTARTS_AT, _FLAGS_AT = 0, 8, 16, 24, 32
_SLOT_AT, _GENERATION_AT, _IMAGE_AT, _ROOTFS_AT = 40, 48, 56, 64
_CRASHES_AT, _HOLDER_AT, _LOST_AT, _FILES_AT, _SHORT_LIVES_AT = 72, 80, 88, 96, 104
_SLOTS_AT = 112
_LAST_END_AT, _FAILURE_AT, _ASKED_AT = 1 << 10, 2 << 10, 4 << 10
_TEXT, _ASKED = (1 << 10) - 8, (60 << 10) - 8
_SETTLED = 1 << 63


class StateFile:
    """The state of one mount. *descriptor* is closed with the process."""

    def __init__(self, descriptor: int) -> None:
        """Use the memory of *descriptor*. Raises MountFailure where it has another version or is not a state."""
        self.descriptor = descriptor
        try:
            self.memory = mmap.mmap(descriptor, SIZE)
        except (OSError, ValueError) as error:
            raise MountFailure(f"the state of the mount cannot be mapped: {error}") from error
        if self._number(_MAGIC_AT) != _MAGIC or self._number(_VERSION_AT) != VERSION:
            version = self._number(_VERSION_AT)
            raise MountFailure(f"the state of the mount has version {version}, and this release of regfs {VERSION}")

    @classmethod
    def new(cls) -> StateFile:
        """Return an empty state. Raises MountFailure where the system has no memfd."""
        descriptor = -1
        try:
            descriptor = os.memfd_create("regfs-mount", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, SIZE)
            os.pwrite(descriptor, _U64.pack(_MAGIC) + _U64.pack(VERSION), 0)
            return cls(descriptor)
        except (OSError, AttributeError, MountFailure) as error:
            with suppress(OSError):
                os.close(descriptor)
            raise MountFailure(f"no memory for the state of the mount: {error}") from error

    # The mount as a whole

    @property
    def has_ended(self) -> bool:
        """Whether the mount was ended on purpose, so that no daemon may follow."""
        return self._number(_LIFE_AT) == ENDED

    def end(self) -> None:
        """Note that the mount ends on purpose."""
        self._write(_LIFE_AT, ENDED)

    @property
    def restarts(self) -> int:
        """How many daemons followed the first one."""
        return self._number(_RESTARTS_AT)

    def count_restart(self) -> None:
        """Count a daemon that follows one which has ended by itself, where no holder counts."""
        self._write(_RESTARTS_AT, self.restarts + 1)
        self._write(_CRASHES_AT, self.crashes + 1)

    @property
    def crashes(self) -> int:
        """How many daemons followed one that had ended by itself."""
        return self._number(_CRASHES_AT)

    @property
    def short_lives(self) -> int:
        """How many daemons in a row have ended at once."""
        return self._number(_SHORT_LIVES_AT)

    @property
    def holder(self) -> int:
        """The process id of the holder; 0 while there is none."""
        return self._number(_HOLDER_AT)

    def forget_holder(self) -> None:
        """Note that there is no holder now."""
        self._write(_HOLDER_AT, 0)

    @property
    def lost_at_s(self) -> float:
        """When the last daemon was lost, in seconds since 1970."""
        return self._number(_LOST_AT) / 1000

    @property
    def last_end(self) -> str:
        """How the last daemon ended: `killed by SIGKILL`."""
        return self._text(_LAST_END_AT, _TEXT)

    @property
    def failure(self) -> str:
        """Why the last `regfs restart` failed; empty if it did not."""
        return self._text(_FAILURE_AT, _TEXT)

    def fail(self, why: str) -> None:
        """Note why the daemon that `regfs restart` started cannot take over."""
        self._write_text(_FAILURE_AT, why.encode("utf-8", "replace")[:_TEXT])

    @property
    def init_flags(self) -> int | None:
        """The flags that INIT has settled; None before it has."""
        said = self._number(_FLAGS_AT)
        return said & ~_SETTLED if said & _SETTLED else None

    def settle(self, flags: int) -> None:
        """Note that INIT was answered with *flags*."""
        self._write(_FLAGS_AT, flags | _SETTLED)

    @property
    def description(self) -> str:
        """The description of the mount, as describe() got it."""
        return self._text(_ASKED_AT, _ASKED)

    def describe(self, description: str) -> None:
        """Note *description*, from which the next daemon starts. Raises MountFailure where it is too long."""
        text = description.encode()
        if len(text) > _ASKED:
            raise MountFailure(f"the options of the mount take {len(text)} bytes; {_ASKED} can be kept")
        self._write_text(_ASKED_AT, text)

    @property
    def free_slot(self) -> tuple[int, int]:
        """The slot that is tried next, and the generation of slots."""
        return self._number(_SLOT_AT) or 1, self._number(_GENERATION_AT)

    def keep_free_slot(self, number: int, generation: int) -> None:
        """Note the slot that is tried next. The generation goes first: a slot may be skipped, never used twice."""
        self._write(_GENERATION_AT, generation)
        self._write(_SLOT_AT, number)

    @property
    def open_files(self) -> int:
        """How many records of open files have been used."""
        return self._number(_FILES_AT)

    def keep_open_files(self, number: int) -> None:
        """Note how many records of open files have been used."""
        self._write(_FILES_AT, number)

    @property
    def slots(self) -> int:
        """How many slots of requests that wait have been used: to look at others would cost their pages."""
        return self._number(_SLOTS_AT)

    def keep_slots(self, number: int) -> None:
        """Note how many slots have been used."""
        self._write(_SLOTS_AT, number)

    @property
    def root(self) -> tuple[int, int]:
        """The nodes of the one image that is shown, and of its rootfs; 0 where there is none."""
        return self._number(_IMAGE_AT), self._number(_ROOTFS_AT)

    def keep_root(self, image: int, rootfs: int) -> None:
        """Note the nodes of the one image that is shown."""
        self._write(_IMAGE_AT, image)
        self._write(_ROOTFS_AT, rootfs)

    def _number(self, at: int) -> int:
        number: int = _U64.unpack_from(self.memory, at)[0]
        return number

    def _write(self, at: int, number: int) -> None:
        _U64.pack_into(self.memory, at, number)

    def _text(self, at: int, most: int) -> str:
        length = min(self._number(at), most)
        return self.memory[at + 8 : at + 8 + length].decode("utf-8", "replace")

    def _write_text(self, at: int, text: bytes) -> None:
        self._write(at, 0)
        self.memory[at + 8 : at + 8 + len(text)] = text
        self._write(at, len(text))
