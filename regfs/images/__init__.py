"""Repositories and images: where registry, store, layers and rootfs meet.

repositories      all repositories of a mount; which a registry lists; refresh
repository        one repository: tags, manifests, blobs
answers/          what registries answered: when a tag is asked again, which names exist
image             from a manifest's digest to layers and rootfs
pinned_images     the images of a mount, and the small values that name one
layer_cache       the layers and merged images of a cache: opened, fetched, repaired
layer_indexes     the names of layers: opened once, ingested where they are not here
layer_ingests     a layer is fetched, verified and indexed
chunk_fetching    which chunks of a lazily read layer are fetched, and when; chunk_requests asks for them
merges            the layers of an image become one table
shared_work       ingests and merges are done once for all processes
workers/          the processes that do it
cached_images     what a cache holds, for `regfs cache`
"""
