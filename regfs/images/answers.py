"""What a repository answers, and how long an answer holds.

Used by repositories.py and repository.py, which make these values, and by their callers. Thread rule: values; any
thread.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from regfs.errors import BadConfiguration, RateLimited, RegistryTimeout, RegistryUnavailable
from regfs.model.digest import Digest
from regfs.store.references import ListRecord, TagRecord

UNREACHABLE = (RegistryUnavailable, RegistryTimeout, RateLimited, BadConfiguration)
"""What does not say that an older answer is wrong."""

STALE_TTL_S = 10.0
"""A registry that is down is not asked again at every look-up while there is an older answer."""

NAMES_KEPT = 1024
"""Which of all the names that a crawler makes up are remembered in memory; the rest is asked of the disk again."""


def is_fresh(record: ListRecord | TagRecord | None, ttl_s: float) -> bool:
    """Tell whether *record* is younger than *ttl_s*; none at all is not."""
    # A clock that was set back makes a record seem to come from the future: such a record is not fresh either.
    return record is not None and 0 <= time.time() - record.checked < ttl_s


class Resolved(NamedTuple):
    """What a tag points to: *digest*, and until when (monotonic seconds) this answer holds."""

    digest: Digest
    media_type: str
    size: int
    expires: float

    @property
    def valid_s(self) -> float:
        """For how many seconds more the answer holds."""
        return max(0.0, self.expires - time.monotonic())


class Listed(NamedTuple):
    """The tags that a listing gave, and until when (monotonic seconds) this answer holds."""

    names: tuple[str, ...]
    members: frozenset[str]
    expires: float


class Document(NamedTuple):
    """The exact bytes of a manifest or index, verified, with the media type under which they are known."""

    digest: Digest
    content: bytes
    media_type: str
