"""Parses the databases of installed packages of dpkg and apk, and the package headers of rpm.

    var/lib/dpkg/status       paragraphs of `Package:`, `Status: install ok installed`, `Version:`, `Architecture:`
    var/lib/dpkg/status.d/*   the same without Status, one file a package (distroless images)
    lib/apk/db/installed      paragraphs of `P:` name, `V:` version, `A:` architecture
    a header of rpm           number of entries, bytes of data (big-endian, 32 bits each); entries of tag, type, offset,
                              count; data: a string ends with NUL, a number has 32 bits

A paragraph or a header without a name is skipped. Sources: deb-control(5), dpkg(1); apk-tools, apk_installed(5); rpm,
docs/manual/format_header.md and tags.md. Used by images/reports/. Pure; any thread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_RPM_NAME, _RPM_VERSION, _RPM_RELEASE, _RPM_EPOCH, _RPM_ARCHITECTURE = 1000, 1001, 1002, 1003, 1022
_RPM_INT32, _RPM_STRING = 4, 6
_RPM_TAGS = {_RPM_NAME, _RPM_VERSION, _RPM_RELEASE, _RPM_EPOCH, _RPM_ARCHITECTURE}
_MOST_RPM_ENTRIES = 1 << 16
_MOST_RPM_STRING = 4096


class Package(NamedTuple):
    """An installed package; *kind* is `deb`, `apk` or `rpm`."""

    kind: str
    name: str
    version: str
    architecture: str


def dpkg_packages(content: bytes) -> Iterator[Package]:
    """Yield the installed packages of dpkg, without removed and half-configured ones."""
    for fields in _paragraphs(content, (b"Package:", b"Status:", b"Version:", b"Architecture:")):
        status = fields.get(b"Status:")
        if fields.get(b"Package:") and (status is None or status.split()[-1:] == ["installed"]):
            yield _package("deb", fields, (b"Package:", b"Version:", b"Architecture:"))


def apk_packages(content: bytes) -> Iterator[Package]:
    """Yield the installed packages of apk."""
    for fields in _paragraphs(content, (b"P:", b"V:", b"A:")):
        if fields.get(b"P:"):
            yield _package("apk", fields, (b"P:", b"V:", b"A:"))


def rpm_package(header: bytes) -> Package | None:
    """Return the package of a header in rpm's database; None if it is not a header, or has no name."""
    fields = dict(_rpm_fields(header))
    if not fields.get(_RPM_NAME):
        return None
    version = "-".join(fields[tag] for tag in (_RPM_VERSION, _RPM_RELEASE) if fields.get(tag)) or "-"
    epoch = f"{fields[_RPM_EPOCH]}:" if _RPM_EPOCH in fields else ""
    return Package("rpm", fields[_RPM_NAME], epoch + version, fields.get(_RPM_ARCHITECTURE) or "-")


def _rpm_fields(header: bytes) -> Iterator[tuple[int, str]]:
    if len(header) < 8:
        return
    entries, size = struct.unpack_from(">II", header)
    start = 8 + 16 * entries
    if entries > _MOST_RPM_ENTRIES or start + size > len(header):
        return
    for tag, kind, offset, _ in struct.iter_unpack(">IIII", header[8:start]):
        if tag not in _RPM_TAGS or offset >= size:
            continue
        if tag == _RPM_EPOCH:
            if kind == _RPM_INT32 and offset + 4 <= size:
                yield tag, str(int.from_bytes(header[start + offset : start + offset + 4]))
        elif kind == _RPM_STRING:
            text = header[start + offset : start + min(size, offset + _MOST_RPM_STRING)]
            yield tag, _printable(text.partition(b"\0")[0])


def _package(kind: str, fields: dict[bytes, str], keys: tuple[bytes, bytes, bytes]) -> Package:
    name, version, architecture = (fields.get(key, "") or "-" for key in keys)
    return Package(kind, name, version, architecture)


def _paragraphs(content: bytes, keys: tuple[bytes, ...]) -> Iterator[dict[bytes, str]]:
    """Yield the first value of each of *keys* in each paragraph, as one printable word or line."""
    fields: dict[bytes, str] = {}
    for line in content.split(b"\n"):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
            continue
        for key in keys:
            if line.startswith(key):
                fields.setdefault(key, _printable(line[len(key) :]))
                break
    if fields:
        yield fields


def _printable(value: bytes) -> str:
    text = " ".join(value.decode("utf-8", "replace").split())
    return "".join(c if c.isprintable() else "?" for c in text)
