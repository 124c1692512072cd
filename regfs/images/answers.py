"""What a repository is asked for, and what its answers look like.

Used by repository.py, which asks, and by whoever works with the answers. Thread rule: values; any thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import RepositoryName


class FetchedDocument(Protocol):
    """A manifest or index as it came, verified: exact bytes, their media type and digest."""

    @property
    def content(self) -> bytes: ...

    @property
    def content_type(self) -> str: ...

    @property
    def digest(self) -> Digest: ...


class Registry(Protocol):
    """What this room asks of the registry client (registry/client.py). All of it blocks on the network."""

    def tags(self, repository: RepositoryName) -> list[str]: ...

    def repositories(self, registry: str) -> list[str]: ...

    def resolve(self, repository: RepositoryName, tag: str) -> Descriptor: ...

    def manifest(self, repository: RepositoryName, reference: str | Digest) -> FetchedDocument: ...

    def blob(self, repository: RepositoryName, descriptor: Descriptor) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a tag points to: *digest*, and until when (monotonic seconds) this answer holds."""

    digest: Digest
    media_type: str
    size: int
    expires: float

    @property
    def valid_s(self) -> float:
        """For how many seconds more the answer holds."""
        return max(0.0, self.expires - time.monotonic())


@dataclass(frozen=True, slots=True)
class Listed:
    """The tags that a listing gave, and until when (monotonic seconds) this answer holds."""

    names: tuple[str, ...]
    members: frozenset[str]
    expires: float


@dataclass(frozen=True, slots=True)
class Document:
    """The exact bytes of a manifest or index, verified, with the media type under which they are known."""

    digest: Digest
    content: bytes
    media_type: str
