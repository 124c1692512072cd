"""Passing a layer: where layers/ (which reads one) and store/ (which keeps one) meet.

A small layer is passed in the calling thread. A big one is passed by a process of its own (pass_process.py), which
gets the compressed bytes through a pipe: the daemon's interpreter stays free to answer the kernel, while connections
and credentials stay in the daemon. Used by contents.py. Thread rule: any thread; a pass belongs to its caller.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from regfs.errors import CacheFailure
from regfs.images.own_process import error_of, process_environment
from regfs.layers.ingest import LayerToPass, Progress, run_pass
from regfs.store.layer_store import LayerStore

__all__ = ["LayerToPass", "Progress", "pass_here", "pass_layer"]

log = logging.getLogger(__name__)

SMALL_LAYER = 1 << 20
"""Layers below this many compressed bytes are passed in the calling thread: a process costs some 80 ms."""

_PIPE_SIZE = 1 << 20
_PATIENCE_S = 10.0


def _nothing(_: Progress) -> None:
    pass


def pass_layer(
    chunks: Iterable[bytes],
    *,
    layer: LayerToPass,
    store: LayerStore,
    progress: Progress | None = None,
    report: Callable[[Progress], None] = _nothing,
    niceness: int = 0,
) -> None:
    """Put the layer that *chunks* are into *store*; it is visible there when this returns, and not at all if it raises.

    It is on the disk only after store.settle(). *report* is called after each chunk, in this thread. *niceness*, as
    nice(2) has it, is that of its process. Blocks for as long as *chunks* does, and raises what it raises.

    Raises:
        DigestMismatch, BadLayer, TooLarge, Unsupported: as run_pass (layers/ingest.py).
        CacheFailure: the cache cannot take it, or the process that passed it was killed.
    """
    progress = progress or Progress()
    if layer.size < SMALL_LAYER:
        pass_here(chunks, layer=layer, store=store, progress=progress, report=report)
    else:
        _pass_in_process(chunks, layer, store=store, progress=progress, report=report, niceness=niceness)


def pass_here(
    chunks: Iterable[bytes],
    *,
    layer: LayerToPass,
    store: LayerStore,
    progress: Progress,
    report: Callable[[Progress], None],
) -> None:
    """Do what pass_layer does in the calling thread."""
    with store.begin_layer(layer.size) as writer:
        run_pass(chunks, layer=layer, sink=writer, progress=progress, report=report)
        store.publish(writer, layer.diff_id)


def _pass_in_process(
    chunks: Iterable[bytes],
    layer: LayerToPass,
    *,
    store: LayerStore,
    progress: Progress,
    report: Callable[[Progress], None],
    niceness: int,
) -> None:
    with _process(layer, store, niceness) as process:
        verdict = _Verdict(process, progress)
        assert process.stdin is not None
        fd = process.stdin.fileno()
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        except OSError:
            pass  # the user has many pipes; it only saves switches
        try:
            for chunk in chunks:
                _write_all(fd, chunk)
                report(progress)
        except BrokenPipeError:
            pass  # it has seen enough, and tells why
        process.stdin.close()
        verdict.raise_if_bad(layer)


class _Verdict:
    """Reads what the process tells: its progress, and in the end what came of it."""

    def __init__(self, process: subprocess.Popen[bytes], progress: Progress) -> None:
        self._process = process
        self._progress = progress
        self._error: dict[str, str] | None = None
        self._is_done = False
        self._thread = threading.Thread(target=self._read, name="pass verdict", daemon=True)
        self._thread.start()

    def raise_if_bad(self, layer: LayerToPass) -> None:
        """Wait for the verdict and raise the error that it is."""
        self._thread.join()
        if self._is_done:
            return
        if self._error is not None:
            raise error_of(self._error)
        code = self._process.wait()
        if code < 0:
            raise CacheFailure(f"{layer.digest}: the process that unpacked it was killed (signal {-code})")
        assert self._process.stderr is not None
        complaint = self._process.stderr.read().decode(errors="replace").strip()
        raise RuntimeError(f"{layer.digest}: the process that unpacked it failed: {complaint[-2000:]}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "error" in told:
                self._error = told
            elif told.get("done"):
                self._is_done = True
            self._progress.received = told.get("received", self._progress.received)
            self._progress.inflated = told.get("inflated", self._progress.inflated)
            self._progress.entries = told.get("entries", self._progress.entries)
            if self._is_done:
                return  # it is visible; nobody needs to wait for the process to be gone


@contextmanager
def _process(layer: LayerToPass, store: LayerStore, niceness: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process; at the end it is gone, and so is what it had written if it did not publish."""
    told = {
        "root": os.fspath(store.root),
        "boot": store.boot,
        "limit": store.budget.limit,
        "digest": str(layer.digest),
        "diff_id": str(layer.diff_id),
        "size": layer.size,
        "media_type": layer.media_type,
        "niceness": niceness,
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "regfs.images.pass_process", json.dumps(told)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=process_environment(),
            start_new_session=True,  # Ctrl-C is for us; our end of the pipe tells the process
        )  # fmt: skip
    except OSError as error:
        raise CacheFailure(f"{layer.digest}: no process could be started: {error.strerror}") from error
    try:
        yield process
    finally:
        _end(process, store)


def _end(process: subprocess.Popen[bytes], store: LayerStore) -> None:
    """Wait for the process, which ends by itself once its input does; with force where it does not."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        log.warning("a pass does not end and is killed")
        process.kill()
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    if process.returncode < 0:
        try:
            store.sweep()
        except CacheFailure as failure:
            log.warning("%s", failure)


def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
