"""Copies of libfuse's structures for a callback that may return too late. Used by own_threads.py.

libfuse frees its structures after its answer. A callback that still works in another thread must not write into them:
it gets copies, which are written back only while libfuse waits.

Thread rule: made and committed in the thread that libfuse has called; the callback uses `given` in another.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

_POINTER: type = type(ctypes.pointer(ctypes.c_int())).__mro__[1]
_FUNCTION: type = type(ctypes.CFUNCTYPE(None)()).__mro__[1]


class PrivateArguments:
    """The *arguments* of one callback; `given` has a copy in place of each pointer.

    A buffer of bytes is followed by its size. A function is readdir's filler: its calls are kept until `commit`.
    """

    def __init__(self, arguments: Sequence[Any]) -> None:
        self._copies: list[tuple[Any, Any]] = []
        self._filler: Callable[..., int] | None = None
        self._filled: list[tuple[Any, bytes, Any, int]] = []
        self.given = [self._private(arguments, position) for position in range(len(arguments))]

    def commit(self) -> bool:
        """Write into libfuse's structures what the callback wrote; return False if a listing has no room."""
        for target, copy in self._copies:
            ctypes.memmove(target, ctypes.addressof(copy), ctypes.sizeof(copy))
        return all(self._filler is not None and self._filler(*entry) == 0 for entry in self._filled)

    def _private(self, arguments: Sequence[Any], position: int) -> Any:
        argument = arguments[position]
        if isinstance(argument, _FUNCTION):
            self._filler = argument  # type: ignore[assignment]
            return self._fill
        if not isinstance(argument, _POINTER) or not argument:
            return argument
        kind = type(argument.contents)  # type: ignore[attr-defined]
        if kind is ctypes.c_byte:
            buffer = (ctypes.c_byte * arguments[position + 1])()
            self._copies.append((argument, buffer))
            return ctypes.cast(buffer, ctypes.POINTER(ctypes.c_byte))
        structure = kind.from_buffer_copy(argument.contents)  # type: ignore[attr-defined]
        self._copies.append((argument, structure))
        return ctypes.pointer(structure)

    def _fill(self, buffer: Any, name: bytes, stat: Any, offset: int) -> int:
        self._filled.append((buffer, name, type(stat).from_buffer_copy(stat), offset))
        return 0
