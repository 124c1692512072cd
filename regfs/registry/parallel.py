"""Fetches one big blob over several connections: pieces in parallel, yielded in order.

    one connection         the whole blob: the first attempt, and the last resort
    if it is the limit     later pieces come over more connections; it ends where the first piece begins
    a piece that fails     one connection goes on at its start, up to the next piece
    ranges are refused     (200, 416, 501, another Content-Range) one connection, for this host for some minutes

A CDN gives each connection some 60 MB/s, and gzip is unpacked four times faster. The number of connections doubles
while that brings more bytes and the reader still waits for the network. It stays where the reader is the limit, and
falls where the line is. Used by blobs.py, which verifies the bytes. Thread rule: ParallelTransfers is shared by all
threads. One read belongs to the thread that iterates; each piece has a thread of its own until it is complete.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import closing
from typing import NamedTuple

from cachetools import TTLCache

from regfs.errors import OutOfThreads, RangesRefused, RegfsError
from regfs.process.threads import start_thread
from regfs.process.waiting.deadline import Deadline, current, under
from regfs.registry.http.ranges import WrongBody
from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

MAX_PIECE = 8 << 20
# Smaller pieces would take more time for the round trip than for the transfer.
_LEAST_PIECE = 4 << 20
_PIECE_S = 0.25
# A blob of fewer pieces is complete before more connections help.
_BIG_PIECES = 4
_WINDOW_S = 0.1
# For how long new connections may take until their first bytes come, before they count as those that bring nothing.
_BEGIN_S = 2.0
# One window may be wrong about the line: another process took it, or the machine was busy.
_AGAIN_S = 2.0
_TRIES = 3
_WINDOW_BYTES = 1 << 20
# A reader that waits less than this part of the time is the limit itself.
_WAITS = 0.4
_WORTH_IT = 1.25
_REFUSED_S = 600.0
# Of all blobs together: this many pieces of MAX_PIECE bytes are in memory at most.
_PIECES = 8


class BlobSource(NamedTuple):
    """Where one blob comes from. *host* is the key under which refused ranges are remembered.

    *whole* yields the bytes from an offset to the end, over one connection; *piece* those of `[start, stop)`, or raises
    RangesRefused. Both block on the network.
    """

    host: str
    what: str
    size: int
    whole: Callable[[int], Generator[bytes, None, None]]
    piece: Callable[[int, int], Generator[bytes, None, None]]


class ParallelTransfers:
    """Reads big blobs over up to *most* connections each; over exactly *fixed* where that is given."""

    def __init__(self, stats: Stats, *, most: int, fixed: int | None = None, max_piece: int = MAX_PIECE) -> None:
        self.most = most if fixed is None else min(fixed, most)
        self.is_fixed = fixed is not None
        self.max_piece = max_piece
        self.stats = stats
        self._room = threading.BoundedSemaphore(_PIECES)
        self._lock = threading.Lock()
        self._refused: TTLCache[str, bool] = TTLCache(1024, _REFUSED_S)

    def read(self, source: BlobSource, offset: int) -> Generator[bytes, None, None]:
        """Yield the bytes of the blob from *offset* on. Not verified. Raises what `source.whole` raises."""
        with closing(_Transfer(self, source, offset)) as transfer:
            yield from transfer.chunks()

    def gives_pieces(self, host: str) -> bool:
        """Whether *host* may be asked for pieces."""
        with self._lock:
            return host not in self._refused

    def distrust(self, host: str, why: object) -> None:
        """Stop asking *host* for pieces for some minutes."""
        with self._lock:
            is_news = host not in self._refused
            self._refused[host] = True
        if is_news:
            self.stats.count("registry.refused_pieces")
            log.info("%s: one connection for each blob: %s", host, why)

    def take_room(self) -> bool:
        """Take room for one piece; False where there is none."""
        return self._room.acquire(blocking=False)

    def give_room_back(self) -> None:
        """Return the room that take_room() took."""
        self._room.release()


class _Piece:
    """The bytes `[start, stop)`: one thread puts them, another takes them."""

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop
        self.has_begun = False
        self.is_over = False
        self.is_wanted = True
        self._lock = threading.Lock()
        self._chunks: deque[bytes] = deque()
        self._arrival: Future[None] | None = None

    @property
    def is_failed(self) -> bool:
        """Whether it ended without a byte to take."""
        with self._lock:
            return self.is_over and not self._chunks

    def put(self, chunk: bytes) -> None:
        """Add received bytes; an empty chunk ends the piece."""
        with self._lock:
            if chunk:
                self.has_begun = True
                self._chunks.append(chunk)
            else:
                self.is_over = True
            arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.set_result(None)

    def take(self) -> bytes:
        """Return the next chunk, empty at the end of the received bytes. Waits as the thread's deadline allows."""
        while True:
            with self._lock:
                if self._chunks:
                    return self._chunks.popleft()
                if self.is_over:
                    return b""
                arrival = self._arrival = Future()
            current().wait_for(arrival)


class _Transfer:
    """One read of one blob."""

    def __init__(self, shared: ParallelTransfers, source: BlobSource, offset: int) -> None:
        self._shared = shared
        self._source = source
        self._offset = offset
        self._pieces: deque[_Piece] = deque()
        self._next_start = 0
        self._piece_size = shared.max_piece
        self._deadline = Deadline()
        is_big = shared.is_fixed or source.size - offset >= _BIG_PIECES * shared.max_piece
        self._growth = Growth(shared.most if is_big else 1, is_fixed=shared.is_fixed)

    def chunks(self) -> Generator[bytes, None, None]:
        """Yield all bytes from the offset on."""
        while self._offset < self._source.size:
            piece = self._piece_here()
            yield from self._of_one_connection() if piece is None else self._of_piece(piece)

    def close(self) -> None:
        """Stop the pieces that are under way."""
        self._deadline.cancel()
        while self._pieces:
            self._drop()

    def _of_one_connection(self) -> Generator[bytes, None, None]:
        with closing(self._source.whole(self._offset)) as chunks:
            while chunk := self._growth.waiting_for(lambda: next(chunks, b"")):
                self._growth.received(len(chunk))
                self._offset += len(chunk)
                yield chunk
                self._ask_for_more(besides=1)
                piece = self._piece_here()
                if piece is not None and piece.has_begun:
                    return

    def _of_piece(self, piece: _Piece) -> Generator[bytes, None, None]:
        skip = self._offset - piece.start
        while chunk := self._growth.waiting_for(piece.take):
            rest, skip = chunk[skip:], max(skip - len(chunk), 0)
            if rest:
                self._offset += len(rest)
                yield rest
            self._ask_for_more(besides=0)
        self._drop()

    def _piece_here(self) -> _Piece | None:
        """Return the piece that has the byte at the offset; useless pieces are dropped."""
        while self._pieces and (self._pieces[0].stop <= self._offset or self._pieces[0].is_failed):
            self._drop()
        first = self._pieces[0] if self._pieces else None
        return first if first is not None and first.start <= self._offset else None

    def _drop(self) -> None:
        self._pieces.popleft().is_wanted = False
        self._shared.give_room_back()

    def _ask_for_more(self, *, besides: int) -> None:
        """Start the pieces that the number of connections allows, where *besides* are in use for no piece."""
        self._growth.look(are_flowing=all(piece.has_begun or piece.is_over for piece in self._pieces))
        connections = self._growth.connections
        if connections == 1 or not self._shared.gives_pieces(self._source.host):
            return
        self._piece_size = min(self._growth.piece_size, self._shared.max_piece)
        if not self._pieces:
            self._next_start = self._offset + self._piece_size
        size = self._source.size
        while (
            self._next_start < size
            and sum(not piece.is_over for piece in self._pieces) < connections - besides
            and len(self._pieces) <= connections
            and self._shared.take_room()
        ):
            piece = _Piece(self._next_start, min(self._next_start + self._piece_size, size))
            try:
                start_thread(self._fetch, piece, name=f"piece {self._source.what}"[:60])
            except OutOfThreads:
                self._shared.give_room_back()
                return
            self._pieces.append(piece)
            self._next_start = piece.stop

    def _fetch(self, piece: _Piece) -> None:
        self._shared.stats.count("registry.pieces")
        try:
            with under(self._deadline), closing(self._source.piece(piece.start, piece.stop)) as chunks:
                for chunk in chunks:
                    if not piece.is_wanted:
                        return
                    self._growth.received(len(chunk))
                    piece.put(chunk)
        except (RangesRefused, WrongBody) as refusal:
            self._shared.distrust(self._source.host, refusal)
        except RegfsError as error:  # one connection goes on there, and reports the error
            log.info("%s: bytes %d to %d: %s", self._source.what, piece.start, piece.stop, error)
        finally:
            piece.put(b"")


class Growth:
    """Decides the number of connections for a blob, by the bytes received in windows of about 0.1 s.

    Where more connections bring nothing, it goes back, and tries again a few times.
    """

    def __init__(self, most: int, *, is_fixed: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.connections = most if is_fixed else 1
        self.piece_size = MAX_PIECE
        self._most = most
        self._is_settled = is_fixed or most == 1
        self._before = 0
        self._rate_before = self._rate_of_one = 0.0
        self._is_new = False
        self._new_since_s = 0.0
        self._tries = _TRIES
        self._again_s = 0.0
        self._lock = threading.Lock()
        self._received = 0
        self._waited_s = 0.0
        self._began_s = self._clock()

    def received(self, size: int) -> None:
        """Note that *size* bytes came, over any connection."""
        with self._lock:
            self._received += size

    def waiting_for(self, chunk: Callable[[], bytes]) -> bytes:
        """Call *chunk* and return its result; note how long the reader waited for it."""
        began_s = self._clock()
        try:
            return chunk()
        finally:
            self._waited_s += self._clock() - began_s

    def look(self, *, are_flowing: bool = True) -> None:
        """Decide again at the end of a window; *are_flowing* tells whether bytes have come over all connections."""
        now_s = self._clock()
        passed_s = now_s - self._began_s
        if self._is_settled or passed_s < _WINDOW_S or self._received < _WINDOW_BYTES:
            return
        with self._lock:
            rate, self._received = self._received / passed_s, 0
        waits, self._waited_s = self._waited_s / passed_s, 0.0
        self._began_s = now_s
        if self._is_new:  # the window in which connections were made proves nothing
            self._is_new = not are_flowing and now_s < self._new_since_s + _BEGIN_S
        elif waits >= _WAITS and now_s >= self._again_s:
            if rate < self._rate_before * _WORTH_IT:
                self._go_back(rate, now_s)
            else:
                self._grow(rate, now_s)

    def _go_back(self, rate: float, now_s: float) -> None:
        # A single connection is better than pieces that are no faster.
        self.connections = 1 if rate < self._rate_of_one else self._before
        self._rate_before = 0.0
        self._tries -= 1
        self._again_s = now_s + _AGAIN_S
        self._is_settled = not self._tries

    def _grow(self, rate: float, now_s: float) -> None:
        if self.connections == 1:
            self._rate_of_one = rate
            self.piece_size = min(max(int(rate * _PIECE_S), _LEAST_PIECE), MAX_PIECE)
        self._before, self._rate_before, self._is_new = self.connections, rate, True
        self._new_since_s = now_s
        self.connections = min(2 * self.connections, self._most)
        self._is_settled = self._before == self._most
