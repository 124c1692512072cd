"""The image that a reference names, and its full name. Used by verbs/ and library/. Any thread."""

from __future__ import annotations

from regfs.images.image import Image
from regfs.images.pinned_images import Images
from regfs.images.repositories import Repositories
from regfs.model.names import Reference


def image_named(reference: Reference, repositories: Repositories, images: Images) -> Image:
    """Return what *reference* names now: the digest decides where it has one. Blocks on the network for a tag.

    Raises NotFound, DigestUnresolved and what a network brings.
    """
    repository = repositories.repository(reference.repository)
    digest = reference.digest
    if digest is None and reference.short_digest is not None:
        digest = repository.manifests.digest_beginning(reference.short_digest)
    if digest is not None:
        return images.image(repository, digest)
    assert reference.tag is not None
    resolved = repository.tags.resolve(reference.tag)
    return images.image(repository, resolved.digest, resolved.media_type)


def full_name(reference: Reference, image: Image) -> str:
    """Return `registry/repository:tag@digest`, with the digest that *image* has."""
    tag = f":{reference.tag}" if reference.tag is not None else ""
    return f"{reference.repository}{tag}@{image.digest}"
