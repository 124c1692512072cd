"""Connects the user's terminal with that of the program: raw input, bytes in both directions, the size.

Used by supervisor.py. One thread; nothing here waits.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios
import tty
from contextlib import suppress

_CHUNK = 65536
_SIZE = 8  # struct winsize: rows, columns, and two fields that are not used


def size_of(terminal: int) -> tuple[int, int]:
    """Return rows and columns of *terminal*, zeros where it does not know."""
    try:
        rows, columns = os.get_terminal_size(terminal)[::-1]
    except OSError:
        return 0, 0
    return rows, columns


class Terminals:
    """Bytes between the user's terminal, standard input and output, and *program*, the other side of the program's."""

    def __init__(self, program: int, *, has_input: bool) -> None:
        """Set standard input to raw mode where it is a terminal; close() sets it back."""
        self._program = program
        os.set_blocking(program, False)
        self._typed = b""
        self._reads_input = has_input
        self._before: list[object] | None = None
        self.is_open = True
        if has_input and os.isatty(0):
            self._before = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)  # keeps input that was typed already

    def wanted(self) -> list[tuple[int, int]]:
        """Return the descriptors to poll, and for which events."""
        found = []
        if self.is_open:
            found.append((self._program, select.POLLIN | (select.POLLOUT if self._typed else 0)))
        if self._reads_input and not self._typed:
            found.append((0, select.POLLIN))
        return found

    def ready(self, descriptor: int, events: int) -> bool:
        """Forward bytes that are ready; return whether the user's terminal is still there."""
        is_there = True
        if descriptor == 0:
            with suppress(OSError):  # EIO: it is not
                self._typed = os.read(0, _CHUNK)
            if not self._typed:
                self._reads_input = is_there = False
        elif events & select.POLLOUT:
            with suppress(BlockingIOError):
                self._typed = self._typed[os.write(self._program, self._typed) :]
        if descriptor == self._program and events & ~select.POLLOUT:
            self.drain(at_most=1)
        return is_there

    def drain(self, at_most: int = 1 << 16) -> None:
        """Write the program's output to standard output, up to a number of pieces."""
        for _ in range(at_most):
            try:
                said = os.read(self._program, _CHUNK)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EIO:  # EIO: no process has the program's side open
                    raise
                said = b""
            if not said:
                self.is_open = False
                return
            while said:
                said = said[os.write(1, said) :]

    def resize(self) -> None:
        """Give the program's terminal the size of the user's."""
        with suppress(OSError):
            size = fcntl.ioctl(0 if os.isatty(0) else 1, termios.TIOCGWINSZ, b"\0" * _SIZE)
            fcntl.ioctl(self._program, termios.TIOCSWINSZ, size)

    def close(self) -> None:
        """Restore the settings of the user's terminal."""
        if self._before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]
            self._before = None
        os.close(self._program)
