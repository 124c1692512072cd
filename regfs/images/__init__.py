"""Repositories and images: where registry, store, layers and rootfs meet.

repositories      all repositories of a mount; which a registry lists; refresh
repository        one repository: tags, manifests, blobs
answers/          what registries answered: when a tag is asked again, which names exist
image             from a manifest's digest to layers and rootfs
artifact_files    what a manifest names that is no layer: the files of an artifact
reports/          texts that are computed from an image: history, packages, wasted; the totals of a layer
comparing/        what differs between two images
computed_once     properties that are computed when they are first asked for
pinned_images     the images of a mount, and the small values that name one
layers/           layers are ingested, opened and merged; what is damaged is fetched again
lazy/             layers with a table of contents are fetched piece by piece
workers/          the processes that ingest and merge
cached_images     what a cache holds, for `regfs cache`
external_tocs     tables of contents that are kept in another image
named_images      the image that a reference names
soci_indexes      the SOCI index of an image is found
starts/           what an image's start reads: recorded, found, fetched ahead
soci_convert      a SOCI index is made for an image, for `regfs index`
"""
