"""Tiny ELF files: what a program or library says of what is loaded with it, and nothing that runs.

elf(interpreter=b"/lib/ld.so", needed=[b"libc.so"], runpath=b"$ORIGIN/../lib")
library_cache({b"libc.so": b"/lib/libc.so"})
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence


def elf(
    *,
    interpreter: bytes = b"",
    needed: Sequence[bytes] = (),
    rpath: bytes = b"",
    runpath: bytes = b"",
    bits: int = 64,
    order: str = "<",
    padding: int = 0,
) -> bytes:
    """Return an ELF file that is mapped as a whole, *padding* bytes longer than it has to be."""
    strings = b"\0"
    tags: list[tuple[int, int]] = []
    for tag, text in [*((1, name) for name in needed), (15, rpath), (29, runpath)]:
        if text:
            tags.append((tag, len(strings)))
            strings += text + b"\0"
    header_size, entry_size = (64, 56) if bits == 64 else (52, 32)
    kinds = [1, 3, 2] if interpreter else [1, 2]
    at = header_size + len(kinds) * entry_size
    stored = interpreter + b"\0" if interpreter else b""
    interpreter_at, strings_at = at, at + len(stored)
    dynamic_at = strings_at + len(strings)
    tags += [(5, strings_at), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack(order + ("qQ" if bits == 64 else "iI"), *pair) for pair in tags)
    total = dynamic_at + len(dynamic) + padding
    places = {1: (0, total), 3: (interpreter_at, len(stored)), 2: (dynamic_at, len(dynamic))}
    headers = b""
    for kind in kinds:
        offset, size = places[kind]
        if bits == 64:
            headers += struct.pack(order + "IIQQQQQQ", kind, 5, offset, offset, offset, size, size, 1)
        else:
            headers += struct.pack(order + "IIIIIIII", kind, offset, offset, offset, size, size, 5, 1)
    identity = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    word = "Q" if bits == 64 else "I"
    fields = struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        3, 62, 1, 0, header_size, 0, 0, header_size, entry_size, len(kinds), 0, 0, 0,
    )  # fmt: skip
    return identity + fields + headers + stored + strings + dynamic + bytes(padding)


def library_cache(paths: Mapping[bytes, bytes], *, after_old: bool = False) -> bytes:
    """Return an ld.so.cache; *after_old* puts the header of old loaders before it."""
    start = 48 + 24 * len(paths)
    strings, entries = b"", b""
    for name, path in paths.items():
        entries += struct.pack("<iIIIQ", 0x303, start + len(strings), start + len(strings) + len(name) + 1, 0, 0)
        strings += name + b"\0" + path + b"\0"
    header = b"glibc-ld.so.cache1.1" + struct.pack("<II", len(paths), len(strings)) + b"\2" + bytes(19)
    old = b"ld.so-1.7.0\0" + struct.pack("<I", 1) + bytes(12) + bytes(4) if after_old else b""
    return old + header + entries + strings
