"""Finds the image that a reference names, and makes its full name. Used by verbs/ and library/. Any thread."""

from __future__ import annotations

from dataclasses import replace

from regfs.errors import NotFound, RegfsError
from regfs.images.image import Image
from regfs.images.pinned_images import Images
from regfs.images.repositories import Repositories
from regfs.model.names import DEFAULT_TAG, OFFICIAL, Reference, RepositoryName, is_tag, repository_at


def image_named(reference: Reference, repositories: Repositories, images: Images) -> Image:
    """Return the image that *reference* names now; if it has a digest, that decides.

    Blocks on the network for a tag, but not for a tag at a time in the past. Raises NotFound, DigestUnresolved and the
    errors of the network. If `debian` is not found, but `library/debian` exists (only Docker Hub adds `library/`), or
    `library/debian:12` for `library/debian/12`, the message says so, for one more request.
    """
    repository = repositories.repository(reference.repository)
    digest = reference.digest
    if digest is None and reference.short_digest is not None:
        digest = repository.manifests.digest_beginning(reference.short_digest)
    if digest is not None:
        return images.image(repository, digest)
    assert reference.tag is not None
    if reference.at is not None:
        return images.image(repository, repository.tags.past.at(reference.tag, reference.at))
    try:
        resolved = repository.tags.resolve(reference.tag)
    except NotFound as missing:
        meant = _meant(reference)
        if meant is None or not _exists(meant, repositories):
            raise
        raise type(missing)(f"{missing}; there is {meant}") from missing
    return images.image(repository, resolved.digest, resolved.media_type)


def _meant(reference: Reference) -> Reference | None:
    """Return a reference that may be meant, or None: `library/debian` for `debian`, `debian:12` for `debian/12`."""
    name = reference.repository
    head, slash, last = name.path.rpartition("/")
    if not slash:
        return replace(reference, repository=RepositoryName(name.registry, f"{OFFICIAL}/{name.path}"))
    if reference.tag != DEFAULT_TAG or not is_tag(last):
        return None
    return replace(reference, repository=repository_at(name.registry, head), tag=last)


def _exists(reference: Reference, repositories: Repositories) -> bool:
    assert reference.tag is not None
    try:
        repositories.repository(reference.repository).tags.resolve(reference.tag)
    except RegfsError:
        return False
    return True


def full_name(reference: Reference, image: Image) -> str:
    """Return `registry/repository:tag@digest`, with the digest that *image* has."""
    tag = f":{reference.tag}" if reference.tag is not None else ""
    return f"{reference.repository}{tag}@{image.digest}"
