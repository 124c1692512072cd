"""Parses ld.so.cache, in which glibc's loader finds the path of a library by its name.

    old header   `ld.so-1.7.0`, 1 byte, u32 number of entries, 12 bytes each; then, at a multiple of 8, the new one
    new header   0 `glibc-ld.so.cache1.1`, 20 number of entries, 24 size of the strings (u32), 28 byte order (u8: 2
                 little, 3 big, 0 the machine's), up to 48
    entry        i32 flags, u32 name, u32 path, u32, u64 capabilities; name and path are offsets of strings from the
                 beginning of the new header

Most caches have the new header alone. Source: glibc, sysdeps/generic/dl-cache.h. Used by images/starts/. Pure; any
thread.
"""

from __future__ import annotations

import struct

_OLD, _NEW = b"ld.so-1.7.0", b"glibc-ld.so.cache1.1"
_OLD_HEADER, _OLD_ENTRY = 16, 12
_HEADER = 48
_MOST = 1 << 16
_MAX_STRING = 4096
MAX_CACHE = 4 << 20
"""The size in bytes of the largest ld.so.cache that is read."""


def parse_ld_so_cache(content: bytes) -> dict[bytes, tuple[bytes, ...]]:
    """Return the paths of each library, the preferred one first; an empty mapping if *content* has another format."""
    start = 0
    if content.startswith(_OLD) and len(content) >= _OLD_HEADER:
        (count,) = struct.unpack_from("<I", content, _OLD_HEADER - 4)
        start = (_OLD_HEADER + count * _OLD_ENTRY + 7) // 8 * 8
    if not content.startswith(_NEW, start) or len(content) < start + _HEADER:
        return {}
    order = ">" if content[start + 28] == 3 else "<"
    (count,) = struct.unpack_from(order + "I", content, start + 20)
    entry = struct.Struct(order + "iIIIQ")
    found: dict[bytes, list[bytes]] = {}
    for number in range(min(count, _MOST)):
        at = start + _HEADER + number * entry.size
        if at + entry.size > len(content):
            break
        _, name_at, path_at, _, _ = entry.unpack_from(content, at)
        name, path = (_string(content, start + place) for place in (name_at, path_at))
        if name and path:
            found.setdefault(name, []).append(path)
    return {name: tuple(paths) for name, paths in found.items()}


def _string(content: bytes, at: int) -> bytes:
    end = content.find(b"\0", at, at + _MAX_STRING)
    return content[at:end] if end > at else b""
