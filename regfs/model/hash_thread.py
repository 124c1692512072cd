"""Hashes the chunks of a big transfer in a second thread, so that the receiving thread does not stop for it.

hashlib releases the interpreter's lock while it hashes, so both threads run at the same time. Used by verification.py.

Thread rule: a HashThread belongs to the thread that made it; close() may be called in any.
"""

from __future__ import annotations

from queue import SimpleQueue

from regfs.errors import OutOfThreads
from regfs.model.digest import Hasher
from regfs.process.threads import start_thread

# Handing a batch to the thread costs some 10 us. Hashing the 16 KiB of one TLS record takes as long.
_HANDED_BYTES = 1 << 18
_MOST_HANDED = 8

_Batch = list[bytes]


class HashThread:
    """Hashes with *hasher*, at most some 2 MiB behind update(). If no thread can be started, update() itself hashes.

    The thread starts with the first bytes and ends with close(), which must be called.
    """

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._batch: _Batch = []
        self._batch_bytes = 0
        self._is_running = False
        # SimpleQueue is reentrant: the garbage collector may call close() within any other call, in any thread.
        self._batches: SimpleQueue[_Batch] = SimpleQueue()
        self._hashed: SimpleQueue[BaseException | None] = SimpleQueue()
        self._handed = 0

    def update(self, chunk: bytes) -> None:
        """Hash *chunk*, which is not copied; waits if the thread is too far behind."""
        self._batch.append(chunk)
        self._batch_bytes += len(chunk)
        if self._batch_bytes >= _HANDED_BYTES:
            self._hand_over()

    def hexdigest(self) -> str:
        """Wait until all chunks are hashed and return their hex digest; more chunks may follow."""
        self._hand_over()
        while self._handed:
            self._wait_for_one()
        return self._hasher.hexdigest()

    def close(self) -> None:
        """Let the thread end after the chunks that it has. Does not wait; no other call may follow."""
        self._batches.put([])

    def _hand_over(self) -> None:
        if not self._batch:
            return
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if not self._is_running:
            try:
                start_thread(self._run, name="hash of a transfer")
            except OutOfThreads:
                _hash(self._hasher, batch)
                return
            self._is_running = True
        while self._handed >= _MOST_HANDED:
            self._wait_for_one()
        self._batches.put(batch)
        self._handed += 1

    def _wait_for_one(self) -> None:
        error = self._hashed.get()
        self._handed -= 1
        if error is not None:
            raise error

    def _run(self) -> None:
        while batch := self._batches.get():
            try:
                _hash(self._hasher, batch)
            except BaseException as error:  # raised in the thread that calls update()
                self._hashed.put(error)
            else:
                self._hashed.put(None)


def _hash(hasher: Hasher, batch: _Batch) -> None:
    for chunk in batch:
        hasher.update(chunk)
