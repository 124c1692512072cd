"""Parses the parts of an ELF file that name its loader and libraries.

    header           0 `\x7fELF`, 4 class (1: 32 bits, 2: 64), 5 byte order (1: little, 2: big), 18 machine (u16);
                     32 bits: 28 offset of the program headers (u32), 42 size of one, 44 number (u16)
                     64 bits: 32 offset (u64), 54 size, 56 number
    program header   32 bits: type, offset, vaddr, paddr, file size, memory size, flags, align: u32 each
                     64 bits: type, flags (u32), offset, vaddr, paddr, file size, memory size, align (u64)
                     types: 1 loaded, 2 dynamic section, 3 interpreter (a path and a NUL)
    dynamic section  pairs of tag and value, u32 or u64 each, up to tag 0: 1 the name of a needed library, 15 RPATH,
                     29 RUNPATH (offsets in the table of strings), 5 that table's address, 10 its size

Not pyelftools: it takes 140 ms and more to import while a program waits to start, and it trusts sizes and counts. Here
every count and size is bounded, and no reference is followed twice. Sources: System V ABI, chapters 4 and 5; elf(5).
Used by images/starts/. Pure but for *read*; any thread.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from regfs.errors import BadContent

Read = Callable[[int, int], bytes]
"""Returns *size* bytes from *offset* of a file, fewer at its end."""

MAGIC = b"\x7fELF"
_HEADER_SIZE = 64
_MOST_HEADERS = 128
_MOST_TAGS = 4096
_MOST_NEEDED = 256
_MAX_STRING = 4096
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_WRITABLE = 2
_END, _NEEDED, _STRINGS, _STRINGS_SIZE, _RPATH, _RUNPATH = 0, 1, 5, 10, 15, 29


class Segment(NamedTuple):
    """A part of the file that is mapped: *size* bytes from *offset*, at *address*."""

    offset: int
    address: int
    size: int
    is_writable: bool


class Elf(NamedTuple):
    """The loader and libraries that a program or library names; *rpath* and *runpath* list directories, as stored."""

    machine: int
    is_64_bits: bool
    interpreter: bytes
    needed: tuple[bytes, ...]
    rpath: bytes
    runpath: bytes
    segments: tuple[Segment, ...]


class _Layout(NamedTuple):
    """How numbers are stored in a file of one class and byte order."""

    place: struct.Struct
    place_at: int
    counts: struct.Struct
    counts_at: int
    header: struct.Struct
    tag: struct.Struct


def _layout(order: str, *, is_64_bits: bool) -> _Layout:
    def made(fields: str) -> struct.Struct:
        return struct.Struct(order + fields)

    if is_64_bits:
        return _Layout(made("Q"), 32, made("HH"), 54, made("IIQQQQQQ"), made("qQ"))
    return _Layout(made("I"), 28, made("HH"), 42, made("IIIIIIII"), made("iI"))


_LAYOUTS = {(kind, order): _layout("<>"[order - 1], is_64_bits=kind == 2) for kind in (1, 2) for order in (1, 2)}


def parse_elf(read: Read) -> Elf:
    """Return the parsed file. Raises BadContent if it is not a valid ELF file, and the errors of *read*."""
    header = read(0, _HEADER_SIZE)
    layout = _LAYOUTS.get((header[4], header[5])) if len(header) >= 52 and header.startswith(MAGIC) else None
    if layout is None:
        raise BadContent("no ELF file")
    try:
        return _parsed(read, header, layout)
    except struct.error:
        raise BadContent("an ELF file that ends early") from None


def _parsed(read: Read, header: bytes, layout: _Layout) -> Elf:
    (machine,) = struct.unpack_from("<>"[header[5] - 1] + "H", header, 18)
    (place,) = layout.place.unpack_from(header, layout.place_at)
    size, count = layout.counts.unpack_from(header, layout.counts_at)
    if size < layout.header.size or not 0 < count <= _MOST_HEADERS:
        raise BadContent(f"an ELF file with {count} program headers of {size} bytes")
    headers = read(place, size * count)
    segments: list[Segment] = []
    interpreter = b""
    dynamic = (0, 0)
    is_64_bits = header[4] == 2
    for number in range(count):
        fields = layout.header.unpack_from(headers, number * size)
        kind, offset, address, length, flags = _fields(fields, is_64_bits=is_64_bits)
        if kind == _LOAD:
            segments.append(Segment(offset, address, length, bool(flags & _WRITABLE)))
        elif kind == _INTERPRETER:
            interpreter = read(offset, min(length, _MAX_STRING)).partition(b"\0")[0]
        elif kind == _DYNAMIC:
            dynamic = offset, length
    needed, rpath, runpath = _libraries(read, layout, dynamic, segments)
    return Elf(machine, is_64_bits, interpreter, needed, rpath, runpath, tuple(segments))


def _fields(fields: tuple[int, ...], *, is_64_bits: bool) -> tuple[int, int, int, int, int]:
    """Return type, offset, address, file size and flags of a program header."""
    if is_64_bits:
        kind, flags, offset, address, _, length, _, _ = fields
    else:
        kind, offset, address, _, length, _, flags, _ = fields
    return kind, offset, address, length, flags


def _libraries(
    read: Read, layout: _Layout, dynamic: tuple[int, int], segments: list[Segment]
) -> tuple[tuple[bytes, ...], bytes, bytes]:
    """Return the needed libraries, RPATH and RUNPATH; none of a program that is linked statically."""
    offset, length = dynamic
    section = read(offset, min(length, _MOST_TAGS * layout.tag.size)) if length else b""
    needed: list[int] = []
    others: dict[int, int] = {}
    for at in range(0, len(section) - layout.tag.size + 1, layout.tag.size):
        tag, value = layout.tag.unpack_from(section, at)
        if tag == _END:
            break
        if tag == _NEEDED and len(needed) < _MOST_NEEDED:
            needed.append(value)
        elif tag in (_STRINGS, _STRINGS_SIZE, _RPATH, _RUNPATH):
            others[tag] = value
    strings = next(
        (
            each.offset + others[_STRINGS] - each.address
            for each in segments
            if _STRINGS in others and each.address <= others[_STRINGS] < each.address + each.size
        ),
        None,
    )
    if strings is None:
        return (), b"", b""
    size = others.get(_STRINGS_SIZE, 0)

    def string(at: int | None) -> bytes:
        if at is None or not 0 <= at < size:
            return b""
        return read(strings + at, min(_MAX_STRING, size - at)).partition(b"\0")[0]

    names = tuple(filter(None, map(string, dict.fromkeys(needed))))
    return names, string(others.get(_RPATH)), string(others.get(_RUNPATH))
