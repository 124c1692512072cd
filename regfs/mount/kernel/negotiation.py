"""INIT: the version and the flags of a session. Used by session.py. Pure."""

from __future__ import annotations

from typing import NamedTuple

from regfs.errors import MountFailure
from regfs.mount.kernel import abi

READ_AHEAD = 1024 * 1024

_WANTED = (
    abi.ASYNC_READ
    | abi.DO_READDIRPLUS
    | abi.PARALLEL_DIROPS
    | abi.ABORT_ERROR
    | abi.MAX_PAGES
    | abi.CACHE_SYMLINKS
    | abi.INIT_EXT
    | abi.HAS_EXPIRE_ONLY
    | abi.PASSTHROUGH
    | abi.ALLOW_IDMAP
)
# The kernel sends at most so many read-aheads before answers come, over all files: with its default of 12, twelve pages
# of a dead registry would stop the read-ahead of all other files.
_MOST_READ_AHEADS = 1024
_MOST_PAGES = 256


class Negotiated(NamedTuple):
    """The agreed flags, and the answer to INIT; not final if the kernel must send another INIT of this version."""

    flags: int
    answer: bytes
    is_final: bool


def negotiate(offer: abi.Offer, *, passthrough: bool, checks_permissions: bool) -> Negotiated:
    """Return the answer to *offer*. Raises MountFailure if the kernel is too old.

    *checks_permissions*: the mount has default_permissions, without which the kernel refuses mapped owners: it alone
    can map them, and the ids of callers that it sends mean nothing then. Nothing here looks at them.

    READDIRPLUS_AUTO is not asked for: with it the kernel reads a big directory without attributes from the second
    answer on, and then looks each entry up. `find -printf %s` over 10,000 entries takes 47 us an entry
    with it and 22 without (`ls -f`, which wants no attributes: 8 and 15; cold, on two busy cores).
    """
    if offer.major > abi.MAJOR:
        return Negotiated(0, _answer(abi.MINOR, 0, offer.max_readahead), is_final=False)
    if offer.major < abi.MAJOR or offer.minor < abi.OLDEST_MINOR:
        raise MountFailure(
            f"the kernel speaks FUSE {offer.major}.{offer.minor}; {abi.MAJOR}.{abi.OLDEST_MINOR} is needed: "
            "Linux 5.4, or --driver fusepy"
        )
    flags = offer.flags & _WANTED
    if not passthrough or not flags & abi.INIT_EXT:
        flags &= ~abi.PASSTHROUGH
    if not checks_permissions or not flags & abi.INIT_EXT:
        flags &= ~abi.ALLOW_IDMAP
    answer = _answer(min(abi.MINOR, offer.minor), flags, min(offer.max_readahead, READ_AHEAD))
    return Negotiated(flags, answer, is_final=True)


def _answer(minor: int, flags: int, max_readahead: int) -> bytes:
    return abi.pack_init(
        minor,
        flags,
        max_readahead=max_readahead,
        max_background=_MOST_READ_AHEADS,
        max_pages=_MOST_PAGES,
        stack_depth=1 if flags & abi.PASSTHROUGH else 0,
    )
