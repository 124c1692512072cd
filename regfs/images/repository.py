"""One repository: its tags, its manifests and its blobs.

Registry and store meet here: the store answers from the cache, the registry answers the rest, and its answers are
stored. If a registry does not respond, the last known tags and all verified content are served. Used by image.py and
the tree. Thread rule: any thread; each request is one flight, for any number of waiting threads.
"""

from __future__ import annotations

from regfs.images.answers.blobs import Blobs
from regfs.images.answers.manifests import Manifests, MissingManifests
from regfs.images.answers.referrers import Referrers
from regfs.images.answers.tags import TagAnswers, Tags
from regfs.images.starts.records import StartRecords
from regfs.model.names import RepositoryName
from regfs.process.waiting.single_flight import Flights
from regfs.registry.client import RegistryClient
from regfs.store.blobs import BlobStore
from regfs.store.references.references import References
from regfs.telemetry.stats import Stats


class Repository:
    """One repository. Made by Repositories.repository().

    repository.tags         its tags, and what each points to now
    repository.manifests    manifests and indexes by digest
    repository.blobs        layers and configs
    repository.referrers    what refers to a manifest
    repository.starts       records of what the start of an image reads
    """

    def __init__(
        self,
        name: RepositoryName,
        *,
        registry: RegistryClient,
        store: BlobStore,
        references: References,
        tags: TagAnswers,
        missing: MissingManifests,
        flights: Flights,
        stats: Stats,
    ) -> None:
        """*tags* and *missing* are the answers in memory that all repositories of a mount share."""
        self.name = name
        self.tags = Tags(name, registry=registry, references=references, answers=tags, flights=flights, stats=stats)
        self.manifests = Manifests(
            name,
            registry=registry,
            store=store,
            references=references,
            missing=missing,
            on_missing=self.tags.doubt,
            tag_ttl_s=tags.ttl_s,
            flights=flights,
            stats=stats,
        )
        self.blobs = Blobs(name, registry=registry, store=store, flights=flights)
        self.referrers = Referrers(name, registry=registry, references=references, flights=flights)
        self.starts = StartRecords(
            name, manifests=self.manifests, blobs=self.blobs, referrers=self.referrers, references=references,
            store=store,
        )  # fmt: skip
