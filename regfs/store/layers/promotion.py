"""Promotion: copies big files of layers into files of their own, for FUSE passthrough.

    objects/<boot id>/<layer>/<offset>-<size>       these bytes of the layer's data file

Passthrough needs a file that holds only these bytes, and reads several times as fast as FUSE. A copy takes half a
second for each gigabyte. So one thread copies only files that are read beyond their first megabyte or opened again; of
a lazy layer, files that were read to their end. Nothing is copied where no passthrough was possible yet (no root, an
old kernel, the fusepy driver), or where another file would have to be evicted for it.

Copies are not flushed to the disk, so they count for this boot only: after a crash they may hold anything. They are
evicted first. Used by layer_store.py. Thread rule: any thread.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from regfs.errors import CacheFailure, OutOfThreads
from regfs.model.digest import Digest
from regfs.process.threads import start_thread
from regfs.store.eviction.budget import Budget
from regfs.store.files.cached_files import open_file, take_away
from regfs.store.files.failures import failures_of
from regfs.store.layers.chunks import PartialData
from regfs.store.layers.content import Span
from regfs.store.layers.data_files import DataFile
from regfs.store.locks.file_locks import new_locked_file

log = logging.getLogger(__name__)

BIG = 1 << 20
"""Files from this size on are promoted when they are used again. Below it, the kernel's page cache serves as well."""
_REMEMBERED = 256
_QUEUED = 64
_STEP = 64 << 20
# A copy must leave as much room free as it takes.
_SHARE = 2
_LOOK_S = 1.0


class PartialSource(NamedTuple):
    """A data file parts of which may be missing; *is_here* tells whether the span in question is there."""

    data: PartialData
    is_here: Callable[[], bool]


class Promotion:
    """The promoted files below *objects*; *boot* is this boot's id, and *budget* tells whether there is room.

    *name_of* names a layer's directory, and *data_file* opens a layer's data file: it may raise CacheFailure.
    """

    def __init__(
        self,
        objects: Path,
        *,
        boot: str,
        budget: Budget,
        name_of: Callable[[Digest], str],
        data_file: Callable[[Digest], DataFile],
    ) -> None:
        self._objects = objects
        self._boot = boot
        self._budget = budget
        self._name_of = name_of
        self._data_file = data_file
        self._lock = threading.Lock()
        self._opened: OrderedDict[Span, None] = OrderedDict()
        self._wanted: deque[tuple[Span, PartialSource | None]] = deque(maxlen=_QUEUED)
        self._is_working = False

    def path(self, span: Span) -> Path:
        """Return the path of the copy of *span*, whether it exists or not."""
        return self._directory(span.layer) / f"{span.offset}-{span.size}"

    def open(self, span: Span) -> int | None:
        """Return a descriptor of the copy of *span*, None where there is none."""
        path = self.path(span)
        try:
            fd = open_file(path)
        except OSError:
            return None
        if os.fstat(fd).st_size == span.size:
            return fd
        os.close(fd)
        with suppress(OSError):
            take_away(path)
        return None

    def backing_wanted(self, span: Span) -> None:
        """Note that *span* was opened where passthrough is possible; the second such open starts a copy."""
        with self._lock:
            is_new = span not in self._opened
            self._opened[span] = None
            self._opened.move_to_end(span)
            if len(self._opened) > _REMEMBERED:
                self._opened.popitem(last=False)
        if not is_new:
            self.read_on(span)

    def read_on(self, span: Span, source: PartialSource | None = None) -> None:
        """Note that *span* is read from beginning to end: a thread copies it, if all of it is here."""
        with self._lock:
            if any(span == wanted for wanted, _ in self._wanted):
                return
            self._wanted.append((span, source))
            if self._is_working:
                return
            try:
                start_thread(self._work, name="regfs-promotion")
            except OutOfThreads as shortage:  # the next use tries again
                log.debug("nothing is promoted: %s", shortage)
                self._wanted.clear()
            else:
                self._is_working = True

    def promote(self, span: Span, source: PartialSource | None = None) -> bool:
        """Copy *span* into a file of its own; return whether the copy exists. Blocks on the disk.

        Nothing is evicted for it. *source* is the data file if parts of it may be missing. Raises CacheFailure.
        """
        path = self.path(span)
        if path.exists():
            return True
        standing = self._budget.standing(wait_s=_LOOK_S)
        if standing is None or standing.free < _SHARE * span.size:
            return False
        evictions = source.data.evictions() if source else 0
        if source is not None and not source.is_here():
            return False
        data = source.data if source else self._data_file(span.layer)
        self._budget.reserve(span.size)
        with failures_of(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            fd, name = new_locked_file(path.parent, ".promoted-")
            try:
                _copy(data.fd, fd, span)
                if source is not None and source.data.evictions() != evictions:  # there may be zeros in the copy
                    os.unlink(name)
                    return False
                os.rename(name, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name)
                raise
            finally:
                os.close(fd)
        return True

    def drop(self, layer: Digest) -> None:
        """Remove all copies of files of *layer*."""
        shutil.rmtree(self._directory(layer), ignore_errors=True)

    def sweep(self) -> None:
        """Remove the copies of other boots and of older releases. Raises OSError."""
        for path in self._objects.iterdir() if self._objects.is_dir() else ():
            if path.name != self._boot:
                log.info("removing %s: it is of another boot of this machine", path)
                shutil.rmtree(path, ignore_errors=True)

    def _directory(self, layer: Digest) -> Path:
        return self._objects / self._boot / self._name_of(layer)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._is_working = False
                    return
                wanted = span, source = self._wanted[0]
            try:
                self.promote(span, source)
            except (CacheFailure, ReferenceError) as failure:  # of a layer that is not in use any more
                log.debug("%s", failure)
            finally:
                with self._lock, suppress(ValueError):  # the LRU may have dropped it meanwhile
                    self._wanted.remove(wanted)


def _copy(source: int, destination: int, span: Span) -> None:
    """Copy the bytes of *span* in the kernel. Raises OSError."""
    done = 0
    while done < span.size:
        copied = os.copy_file_range(source, destination, min(_STEP, span.size - done), span.offset + done, done)
        if not copied:
            raise OSError(errno.EIO, "the data file is cut off")
        done += copied
