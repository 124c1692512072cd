"""Repositories and images: where registry, store, layers and rootfs meet.

repositories      all repositories of a mount, and those that a registry lists; refresh
repository        one repository: tags, manifests, blobs
answers/          answers of registries: when a tag is asked for again, which names exist
image             from a manifest's digest to layers and rootfs
artifact_files    the files of an artifact: blobs of a manifest that are not layers
referring/        what refers to an image: signatures, attestations, SBOMs
judging/          whether the user's policy allows an image
reports/          texts that are computed from an image: history, packages, wasted; the totals of a layer
comparing/        what differs between two images
computed_once     properties that are computed at the first use
pinned_images     the images of a mount, and the small values that name one
layers/           ingests, opens and merges layers; fetches damaged ones again
lazy/             fetches layers with a table of contents piece by piece
workers/          the processes that ingest and merge
cached_images     what a cache holds, for `regfs cache`
holdings          what a cache holds, and what keeps it from eviction
eviction_by_name  evicts an image or a part of it from a cache, for `rm` and `regfs cache rm`
adoption          enters images of archives into the cache
external_tocs     tables of contents that are kept in another image
named_images      the image that a reference names
soci_indexes      finds the SOCI index of an image
starts/           records what the start of an image reads, and fetches it ahead
soci_convert      makes a SOCI index for an image: `regfs index`
"""
