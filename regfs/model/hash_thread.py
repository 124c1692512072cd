"""Hashes the chunks of a big transfer in a thread of its own, so that the thread that receives need not stop for it.

hashlib leaves the interpreter's lock while it hashes, so that both threads run at the same time. Used by
verification.py.

Thread rule: a HashThread belongs to one thread, apart from the one that it starts; close() may be called in any.
"""

from __future__ import annotations

from queue import SimpleQueue

from regfs.errors import OutOfThreads
from regfs.model.digest import Hasher
from regfs.process.threads import start_thread

# To hand something over costs some 10 us, in which 16 KiB, which TLS gives at a time, are hashed.
_HANDED_BYTES = 1 << 18
_MOST_HANDED = 8

_Batch = list[bytes]


class HashThread:
    """Hashes by *hasher*, at most some 2 MiB behind what it was given. Where no thread can be had it hashes at once.

    The thread starts with the first bytes and ends with close(), which must be called.
    """

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._batch: _Batch = []
        self._batch_bytes = 0
        self._is_running = False
        # SimpleQueues alone: the garbage collector may call close() in the middle of any other call, in any thread.
        self._batches: SimpleQueue[_Batch] = SimpleQueue()
        self._hashed: SimpleQueue[BaseException | None] = SimpleQueue()
        self._handed = 0

    def update(self, chunk: bytes) -> None:
        """Hash *chunk*, which is not copied; waits where the thread is too far behind."""
        self._batch.append(chunk)
        self._batch_bytes += len(chunk)
        if self._batch_bytes >= _HANDED_BYTES:
            self._hand_over()

    def hexdigest(self) -> str:
        """Return the digest of all chunks, once they are hashed; more may follow."""
        self._hand_over()
        while self._handed:
            self._wait_for_one()
        return self._hasher.hexdigest()

    def close(self) -> None:
        """End the thread once it has hashed what it was given. Waits for nothing; nothing may follow."""
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
            except BaseException as error:  # it belongs to the thread that gives the chunks
                self._hashed.put(error)
            else:
                self._hashed.put(None)


def _hash(hasher: Hasher, batch: _Batch) -> None:
    for chunk in batch:
        hasher.update(chunk)
