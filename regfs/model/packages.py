"""Parses databases of installed packages: dpkg's and apk's.

    var/lib/dpkg/status       paragraphs of `Package:`, `Status: install ok installed`, `Version:`, `Architecture:`
    var/lib/dpkg/status.d/*   the same without Status, one file a package (distroless images)
    lib/apk/db/installed      paragraphs of `P:` name, `V:` version, `A:` architecture

A paragraph without a name is skipped. Sources: deb-control(5), dpkg(1); apk-tools, apk_installed(5). Used by
images/reports/packages.py. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Package(NamedTuple):
    """An installed package; *kind* is `deb` or `apk`."""

    kind: str
    name: str
    version: str
    architecture: str


def dpkg_packages(content: bytes) -> Iterator[Package]:
    """Yield the packages that are installed; not removed or half configured ones."""
    for fields in _paragraphs(content, (b"Package:", b"Status:", b"Version:", b"Architecture:")):
        status = fields.get(b"Status:")
        if fields.get(b"Package:") and (status is None or status.split()[-1:] == ["installed"]):
            yield _package("deb", fields, (b"Package:", b"Version:", b"Architecture:"))


def apk_packages(content: bytes) -> Iterator[Package]:
    """Yield the packages that are installed."""
    for fields in _paragraphs(content, (b"P:", b"V:", b"A:")):
        if fields.get(b"P:"):
            yield _package("apk", fields, (b"P:", b"V:", b"A:"))


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
