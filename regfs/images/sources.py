"""Where repositories get their answers from, and keep them. Made by repositories.py for all of one mount.

Thread rule: a value, whose parts any thread may use.
"""

from __future__ import annotations

from typing import NamedTuple

from regfs.registry.client import RegistryClient
from regfs.store.blobs import BlobStore
from regfs.store.references import References
from regfs.telemetry.stats import Stats
from regfs.waiting.flights import Flights


class Sources(NamedTuple):
    """*tag_ttl_s*: for how long an answer about a tag or a listing is taken as it is."""

    registry: RegistryClient
    blobs: BlobStore
    references: References
    flights: Flights
    stats: Stats
    tag_ttl_s: float
