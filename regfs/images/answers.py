"""What a repository is asked for, and what its answers look like.

Used by repositories.py and repository.py, which ask, and by whoever works with the answers. Thread rule: values; any
thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from regfs.errors import BadConfiguration, RateLimited, RegistryTimeout, RegistryUnavailable
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import RepositoryName
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


class FetchedDocument(Protocol):
    """A manifest or index as it came, verified: exact bytes, their media type and digest."""

    @property
    def content(self) -> bytes: ...

    @property
    def content_type(self) -> str: ...

    @property
    def digest(self) -> Digest: ...


class FirstPage(Protocol):
    """The names on the first page of a list, and whether these are all."""

    @property
    def names(self) -> list[str]: ...

    @property
    def is_all(self) -> bool: ...


class Registry(Protocol):
    """What this room asks of the registry client (client.py). All of it but forget_failures blocks on the network."""

    def tags(self, repository: RepositoryName) -> list[str]: ...

    def repositories(self, registry: str) -> list[str]: ...

    def first_tags(self, repository: RepositoryName) -> FirstPage: ...

    def repositories_after(self, registry: str, name: str) -> FirstPage: ...

    def resolve(self, repository: RepositoryName, tag: str, *, may_be_missing: bool = False) -> Descriptor: ...

    def manifest(self, repository: RepositoryName, reference: str | Digest) -> FetchedDocument: ...

    def blob(self, repository: RepositoryName, descriptor: Descriptor) -> Iterator[bytes]: ...

    def forget_failures(self) -> None: ...


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
