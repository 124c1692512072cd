"""The layers that were passed: their indexes, packs and objects.

    layers/<diff id>.index  layers/<diff id>.pack     one layer; where the index is, the layer is whole
    layers/<diff id>.sums                              what its files were when they were written (sums.py)
    objects/<hh>/<hex>                                 a file of 256 KiB or more by its sha256, shared by all layers
    young/<token>                                      what may not be on the disk yet
    passes/<token>…                                    a pass under way (layer_writer.py)

**Visible first, durable after.** Syncing a gigabyte takes seconds, which nobody shall wait for; but a file that was
renamed before its bytes were on the disk may be empty after a power cut, or full of zeros. So before the renames a
young marker with the boot's id and all the names goes to the disk (one small fsync). Later settle() syncs the whole
file system once and removes the markers that were there before it. A crash of ours in between loses nothing: the
kernel has the bytes. After a crash of the machine recover() finds markers of another boot, looks at each object they
name, and removes layers that they name.

Used by the images room. Thread rule: any thread; several daemons may share the directory.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import finalize

from regfs.errors import CacheDamaged, CacheFailure, InvalidName, OutOfThreads
from regfs.model.digest import Digest
from regfs.store.budget import Budget
from regfs.store.content import Content, Nothing, OpenContent, Pack, Packed, empty
from regfs.store.failures import cache_failure, failures_of
from regfs.store.layer_index import LayerIndex
from regfs.store.layer_writer import LayerWriter
from regfs.store.locks import changing, touch
from regfs.store.sums import SUFFIX as SUMS
from regfs.store.sums import format_sums, load_sums, sha256_of
from regfs.threads import start_thread

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what tells this boot of the machine from any other."""
    return _BOOT_ID.read_text().strip()


class LayerStore:
    """The layers below *root*. *boot* is this boot's id; *limit* the most that the cache may hold (budget.py)."""

    def __init__(self, root: Path, *, boot: str = "", limit: int | None = None) -> None:
        self.root = root
        self.budget = Budget(root, limit=limit)
        self.boot = boot or boot_id()
        self._layers = root / "layers"
        self._objects = root / "objects"
        self._young = root / "young"
        self._passes = root / "passes"
        self._lock = threading.Lock()
        self._packs: dict[Digest, Pack] = {}
        self._settling = False
        self._settle_again = False

    def index_path(self, diff_id: Digest) -> Path:
        """Return where the layer's index is, whether it is there or not."""
        return self._layers / f"{_name_of(diff_id)}.index"

    def pack_path(self, diff_id: Digest) -> Path:
        """Return where the layer's pack is, whether it is there or not."""
        return self._layers / f"{_name_of(diff_id)}.pack"

    def _sums_path(self, diff_id: Digest) -> Path:
        return self._layers / f"{_name_of(diff_id)}{SUMS}"

    def object_path(self, sha256: str) -> Path:
        """Return where the object is, whether it is there or not."""
        return self._objects / sha256[:2] / sha256

    def is_passed(self, diff_id: Digest) -> bool:
        """Tell whether the layer is here."""
        return self.index_path(diff_id).exists()

    def open_index(self, diff_id: Digest) -> LayerIndex:
        """Return the layer's index; as long as it is there, so are the layer's files.

        Raises NotFound, CacheFailure (drop and pass again).
        """
        index = LayerIndex.open(self.index_path(diff_id))
        touch(self.index_path(diff_id))
        # The pack may be evicted after its index is gone; an open one would keep its room on the disk taken.
        finalize(index, self._packs.pop, diff_id, None)
        return index

    def is_whole(self, diff_id: Digest) -> bool:
        """Tell whether all files of the layer are here. Raises CacheFailure where that cannot be found out now."""
        try:
            sums = load_sums(self._sums_path(diff_id))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        except OSError as error:  # out of descriptors, an I/O error: no reason to fetch a layer
            raise cache_failure(self._sums_path(diff_id), error) from error
        return all((self.root / name).exists() for name in sums)

    def open_content(self, content: Content) -> OpenContent:
        """Return the opened *content*.

        Raises CacheDamaged where its file is gone, or has another size than it should have: such a file is dropped.
        Raises CacheFailure where it cannot be opened now.
        """
        if isinstance(content, Nothing):
            return empty()
        if isinstance(content, Packed):
            pack = self._pack(content.layer)
            if content.offset + content.size > pack.size:
                self.drop(content.layer)
                raise CacheDamaged(f"{self.pack_path(content.layer)}: cut off after {pack.size} bytes")
            return OpenContent(pack.fd, content.size, start=content.offset, pack=pack)
        path = self.object_path(content.sha256)
        with _damaged_if_gone(path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(fd).st_size
        if size != content.size:
            os.close(fd)
            with failures_of(path):
                path.unlink(missing_ok=True)
            raise CacheDamaged(f"{path}: {size} bytes, not {content.size}")
        return OpenContent(fd, content.size)

    def drop(self, diff_id: Digest) -> None:
        """Remove a layer that proved unreadable; whoever has it open goes on.

        Its objects may be other layers' too: the budget removes those that nobody needs. Raises CacheFailure.
        """
        self._packs.pop(diff_id, None)
        with changing(self.root), failures_of(self.index_path(diff_id)):
            for path in (self.index_path(diff_id), self.pack_path(diff_id), self._sums_path(diff_id)):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the packs that were read from; who is reading goes on."""
        self._packs.clear()

    @contextmanager
    def begin_layer(self, size: int = 0) -> Iterator[LayerWriter]:
        """Give a writer for one layer; what publish() has not taken is removed at the end.

        *size* is what it will take at least. Raises CacheFailure, at once where there is not that much room.
        """
        self.budget.reserve(size)
        with self._pass_directory() as directory:
            writer = LayerWriter(directory, object_path=self.object_path, reserve=self.budget.reserve)
            try:
                yield writer
            finally:
                writer.close()

    def publish(self, writer: LayerWriter, diff_id: Digest) -> None:
        """Make the layer visible, its digests having been found right. Raises CacheFailure; then it is not visible."""
        writer.finish()
        marker = self._young / secrets.token_hex(8)
        names = {"boot": self.boot, "layer": str(diff_id), "objects": sorted(writer.objects)}
        with failures_of(marker):
            self._young.mkdir(parents=True, exist_ok=True)
            # Under another name first: a recover() of another process removes what it finds torn.
            written = writer.index.with_suffix(".marker")
            _write_durably(written, json.dumps(names).encode())
            written.rename(marker)
            _sync_directory(self._young)
        sums = self._write_sums(writer, diff_id)
        with changing(self.root):
            for name, path in writer.objects.items():
                _rename(path, self.object_path(name))
            _rename(writer.pack_file, self.pack_path(diff_id))
            _rename(sums, self._sums_path(diff_id))
            # The index comes last: where it is, all that it names is.
            _rename(writer.index, self.index_path(diff_id))

    def _write_sums(self, writer: LayerWriter, diff_id: Digest) -> Path:
        sums = {self.object_path(name).relative_to(self.root).as_posix(): name for name in writer.objects}
        path = writer.index.with_suffix(SUMS)
        with failures_of(path):
            sums[self.pack_path(diff_id).relative_to(self.root).as_posix()] = writer.pack_sha256
            sums[self.index_path(diff_id).relative_to(self.root).as_posix()] = sha256_of(writer.index)
            path.write_bytes(format_sums(sums))
        return path

    def settle(self) -> None:
        """Wait until all that is visible now is on the disk, and remove its markers. Takes as long as the disk does.

        A marker is written when all bytes of its layer are, so that a sync after it covers them. Raises CacheFailure.
        """
        with failures_of(self._young):
            markers = _files_in(self._young)
            if markers:
                _sync_file_system(self._young)
            for marker in markers:
                marker.unlink(missing_ok=True)

    def settle_soon(self) -> None:
        """Let a thread settle; one at a time, and once more for what became visible meanwhile.

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

    def recover(self) -> None:
        """Remove what a crash of the machine may have torn, before anything of the cache is used.

        Costs a look at an empty directory; after a crash, the reading of what had just been written. Raises
        CacheFailure where the directory cannot be used.
        """
        with failures_of(self.root):
            for marker in _files_in(self._young):
                self._recover_marker(marker)

    def sweep(self) -> None:
        """Remove what dead passes left; living ones, of any daemon, are not touched. Raises CacheFailure."""
        with failures_of(self._passes):
            for directory in self._passes.iterdir() if self._passes.is_dir() else ():
                self._sweep(directory.name.removesuffix(".lock"))

    def _recover_marker(self, marker: Path) -> None:
        try:
            names = json.loads(marker.read_bytes())
            boot, layer, objects = names["boot"], Digest.parse(names["layer"]), [str(name) for name in names["objects"]]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, InvalidName):
            # The marker itself is torn: the renames came after its fsync, so that there were none.
            marker.unlink(missing_ok=True)
            return
        if boot == self.boot:
            return
        for name in objects:
            path = self.object_path(name)
            if path.exists() and sha256_of(path) != name:
                log.warning("%s was torn by a crash and is removed", path)
                path.unlink(missing_ok=True)
        if self.is_passed(layer):
            log.info("layer %s may have been torn by a crash and will be passed again", layer)
        self.drop(layer)
        marker.unlink(missing_ok=True)

    def _pack(self, diff_id: Digest) -> Pack:
        pack = self._packs.get(diff_id)
        if pack is None:
            with _damaged_if_gone(self.pack_path(diff_id)):
                # Two threads may open it at once: both packs are good, and one of them stays.
                pack = self._packs.setdefault(diff_id, Pack(self.pack_path(diff_id)))
        return pack

    @contextmanager
    def _pass_directory(self) -> Iterator[Path]:
        """Give a directory that sweep() lets alone while this process lives, and remove it at the end."""
        token = secrets.token_hex(8)
        lock_path, directory = self._passes / f"{token}.lock", self._passes / token
        with failures_of(directory):
            self._passes.mkdir(parents=True, exist_ok=True)
            lock = _lock_new(lock_path)
            try:
                directory.mkdir()
            except OSError:
                os.close(lock)
                raise
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            lock_path.unlink(missing_ok=True)
            os.close(lock)

    def _sweep(self, token: str) -> None:
        """Remove what the pass left, unless it lives: then its lock is held."""
        lock_path = self._passes / f"{token}.lock"
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            # The lock is made before the directory and removed after it: nobody owns this.
            shutil.rmtree(self._passes / token, ignore_errors=True)
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            log.info("removing what an interrupted pass left in %s", self._passes / token)
            shutil.rmtree(self._passes / token, ignore_errors=True)
            lock_path.unlink(missing_ok=True)
        finally:
            os.close(lock)


@contextmanager
def _damaged_if_gone(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a failure: CacheDamaged where the file of a layer that is here is missing."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CacheDamaged(f"{path}: it is gone from the cache") from error
    except OSError as error:
        raise cache_failure(path, error) from error


def _name_of(diff_id: Digest) -> str:
    return diff_id.encoded if diff_id.algorithm == "sha256" else f"{diff_id.algorithm}-{diff_id.encoded}"


def _lock_new(path: Path) -> int:
    """Return the descriptor of a new, locked file."""
    # A sweep may come between the making and the locking, and take the file for a dead pass's: then once more.
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if os.stat(path).st_ino == os.fstat(lock).st_ino:
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)


def _rename(source: Path, destination: Path) -> None:
    with failures_of(destination):
        try:
            source.rename(destination)
        except FileNotFoundError:
            destination.parent.mkdir(parents=True, exist_ok=True)
            source.rename(destination)


def _files_in(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []


def _write_durably(path: Path, content: bytes) -> None:
    """Write a new file so that its bytes are on the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """Let the names in a directory be on the disk."""
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
