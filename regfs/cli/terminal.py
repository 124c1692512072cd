"""The terminal: results on stdout, all else on stderr, one line each. The only module that prints. Any thread."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from regfs.errors import RegfsError
from regfs.model.userinfo import without_userinfo


def open_standard_streams() -> None:
    """Open the standard streams that the process was started without (`>&-`), before anything else is opened.

    Otherwise the first files of the cache or the mount would get the descriptors 0 to 2, and prints would go into them.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor: this one
    # Python has None for a stream that was closed. These last as long as the process.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    # Once: it writes what is buffered, which has failed already where this is called again (a pipe without a reader).
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors != "surrogateescape":
        sys.stdout.reconfigure(errors="surrogateescape")


def _harmless(text: str, stream: TextIO) -> str:
    """Return *text*; for a terminal, without characters that control it, which names in images may have."""
    if not stream.isatty():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def tell(text: str) -> None:
    """Print the result *text* on stdout. File names are written as their bytes, where the encoding can.

    On a terminal, characters that control it are `?`, as by ls(1).

    Raises BrokenPipeError where the reader has gone, RegfsError where nothing can be written (a full disk).
    """
    text = _harmless(text, sys.stdout)
    try:
        try:
            print(text, flush=True)
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding
            print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RegfsError(f"the result cannot be written: {error.strerror}") from error


def tell_bytes(chunks: Iterable[bytes]) -> None:
    """Write *chunks* to stdout as they are. Raises as tell() does."""
    for chunk in chunks:
        try:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise RegfsError(f"the result cannot be written: {error.strerror}") from error


def warn(message: str) -> None:
    """Print *message* on stderr, after `regfs: `. Passwords that were typed with a reference are hidden.

    A closed terminal does not end a verb: it goes on without.
    """
    try:
        print(f"regfs: {_harmless(without_userinfo(message), sys.stderr)}", file=sys.stderr, flush=True)
    except OSError:
        pass


def say_nothing(_message: str) -> None:
    """Print nothing: used in place of warn() where no progress is wanted."""
