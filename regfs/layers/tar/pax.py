"""PAX extended headers: `<length> <key>=<value>\\n`, repeated.

Keys and values are bytes here: hdrcharset only tells whether names are UTF-8 or of no known encoding, and a file name
is bytes either way. Source: POSIX pax, "pax Extended Header"; GNU tar manual, "Storing Sparse Files". Pure; any thread.
"""

from __future__ import annotations

import re

from regfs.errors import BadLayer

SPARSE_MAP = b"GNU.sparse.map"

_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_XATTR = b"SCHILY.xattr."
_TIME = re.compile(rb"(-?)(\d{1,19})(?:\.(\d*))?", re.ASCII)
_S = 1_000_000_000
_MAX_SECONDS = 1 << 62
_XATTR_NAME_MAX = 255
_XATTR_SIZE_MAX = 65536
# About the host and the overlay that an image was built on; umoci leaves out the same ones.
_OVERLAYS_OWN = (b"opaque", b"redirect", b"origin", b"impure", b"nlink", b"upper", b"metacopy")
_HOSTS_OWN = frozenset(
    {b"security.selinux", b"system.nfs4_acl", *(b"trusted.overlay." + name for name in _OVERLAYS_OWN)}
)

Records = dict[bytes, bytes]


def parse_records(payload: bytes) -> Records:
    """Return the records of one extended header; of a key that comes twice the last. Raises BadLayer.

    The pairs of GNU's sparse format 0.0, which repeat their keys, are gathered as a map of format 0.1.
    """
    records: Records = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(payload) and payload[at]:
        space = payload.find(b" ", at, at + 12)
        digits = payload[at:space]
        end = at + int(digits) if space > at and digits.isdigit() else 0
        if end <= space + 1 or end > len(payload) or payload[end - 1] != 0x0A:
            raise BadLayer("a PAX record has a wrong length")
        key, equals, value = payload[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise BadLayer("a PAX record has no key")
        if key in _SPARSE_PAIR:
            if key != _SPARSE_PAIR[len(sparse) % 2]:
                raise BadLayer("a PAX sparse map is out of order")
            sparse.append(value)
        records[key] = value
        at = end
    if sparse:
        records[SPARSE_MAP] = b",".join(sparse)
    return records


def time_ns(value: bytes) -> int:
    """Return the nanoseconds of a time such as `1350244992.023960108` or `-1.5`; finer digits are cut off.

    Raises BadLayer.
    """
    matched = _TIME.fullmatch(value)
    if matched is None or int(matched[2]) > _MAX_SECONDS:
        raise BadLayer(f"{value[:40]!r} is not a time")
    fraction = (matched[3] or b"")[:9].ljust(9, b"0")
    nanoseconds = int(matched[2]) * _S + int(fraction)
    return -nanoseconds if matched[1] else nanoseconds


def xattrs_of(records: Records) -> dict[bytes, bytes] | None:
    """Return the extended attributes among *records*, None where there are none. Raises BadLayer.

    An empty value means that there is no such record (POSIX), so that an attribute cannot be empty.
    """
    xattrs: dict[bytes, bytes] = {}
    for key, value in records.items():
        if not key.startswith(_XATTR) or not value:
            continue
        name = key[len(_XATTR) :]
        if not 0 < len(name) <= _XATTR_NAME_MAX or b"\0" in name or len(value) > _XATTR_SIZE_MAX:
            raise BadLayer(
                f"the extended attribute {name[:40]!r} of {len(value)} bytes is one that Linux does not take"
            )
        if name not in _HOSTS_OWN:
            xattrs[name] = value
    return xattrs or None
