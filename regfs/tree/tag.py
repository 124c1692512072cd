"""The directory of a tag, and the other names in a repository that mean one of its manifests.

    library/debian/
    ├── 12/                 a tag: what it points to now, see image.py
    ├── bookworm/
    ├── sha256:…/           any manifest by digest; opens, though it is not listed
    ├── @sha256-…/          the same without a colon, for -v, lowerdir= and PYTHONPATH
    ├── @440129be81b2/      the same by the first 12 or more digits, if regfs knows exactly one
    └── 12@2026-11-01T00:00Z/   what the tag pointed to then, if that was seen; opens, is not listed

The directory of a tag stays the same node when the tag moves. The nodes below have the digest in their keys, and are
valid as long as the answer about the tag. A process inside an image stays in that image; later look-ups find the new
one once no process is inside the old one (tags_in_use.py). Used by namespace.py. Any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from regfs.errors import BadManifest, InvalidName, NotFound, ProtocolViolation
from regfs.images.answers.tags import Resolved
from regfs.images.pinned_images import Images
from regfs.images.repository import Repository
from regfs.model.attributes import Attributes
from regfs.model.digest import Digest
from regfs.model.names import DEFAULT_TAG, RepositoryName, Version, parse_version
from regfs.tree.image import ImageDirectory
from regfs.tree.node import FOREVER, Child, Dated, Found, directory_attributes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TagDirectory(Dated):
    """The directory of a tag. stat(2) makes no request; look-ups and listings resolve the tag.

    Its date is that of the last image that the tag pointed to, if the image's config is known.
    """

    key: str
    repository: Repository
    tag: str
    images: Images
    resolve: Callable[[], Resolved] | None = field(default=None, compare=False)
    """Returns the image to show; None asks the repository. tags_in_use.py sets it."""

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes(self.repository.tags.created_ns(self.tag))

    def lookup(self, name: str) -> Found:
        """Return a part of the image that the tag points to now."""

        def part(resolved: Resolved) -> Found:
            found = self._image(resolved).lookup(name)
            return Found(found.node, min(found.valid_s, resolved.valid_s))

        return self._of_image(part)

    def children(self) -> list[Child]:
        """Return the parts of the image that the tag points to now."""
        return self._of_image(lambda resolved: self._image(resolved).children())

    def image(self, digest: Digest) -> ImageDirectory:
        """Return the directory of an image that the tag pointed to. Its parts' keys have tag and digest. No request."""
        record = self.repository.tags.last_known(self.tag)
        # The registry's word that it has the manifest, so that one which is cached is not asked for again.
        media_type = record.media_type if record is not None and record.digest == digest else ""
        return ImageDirectory(f"{self.key}@{digest}", self.images.pinned(self.repository, digest, media_type))

    def xattrs(self, shown: Digest | None = None) -> dict[bytes, bytes]:
        """Return what the tag pointed to when the registry was last asked, and when that was. Makes no request.

        *shown*: the image that is shown instead, if the tag has moved. `path` leads from the root of the mount to the
        image by digest. Tools that copy or list attributes read these for each tag of a listing, so they must cost no
        request.
        """
        xattrs = {}
        record = self.repository.tags.last_known(self.tag)
        if record is not None and record.checked:  # 0: the answer is kept but in doubt
            checked = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.checked))
            xattrs[b"user.regfs.checked"] = checked.encode()
        digest = shown or (record.digest if record is not None else None)
        if digest is not None:
            xattrs[b"user.regfs.digest"] = str(digest).encode()
            xattrs[b"user.regfs.path"] = path_by_digest(self.repository.name, digest).encode()
        return xattrs

    def _of_image(self, ask: Callable[[Resolved], T]) -> T:
        """Call *ask* with the image that the tag points to now, and return the result. Resolves a moved tag again."""
        resolved = self._resolved()
        try:
            return ask(resolved)
        except (NotFound, ProtocolViolation):  # the registry has no such manifest, or another one under the tag
            # The answer was some seconds old: the tag may have moved, and the registry have dropped the old image.
            again = self._resolved()
            if again.digest == resolved.digest:
                raise
            return ask(again)

    def _resolved(self) -> Resolved:
        return self.repository.tags.resolve(self.tag) if self.resolve is None else self.resolve()

    def _image(self, resolved: Resolved) -> ImageDirectory:
        pinned = self.images.pinned(self.repository, resolved.digest, resolved.media_type)
        return ImageDirectory(f"{self.key}@{resolved.digest}", pinned)


def path_by_digest(repository: RepositoryName, digest: Digest) -> str:
    """Return the path, from the root of a mount, to the image *digest* of *repository*; its meaning never changes.

    It has no colon unless the registry is an IPv6 address: `podman -v`, overlay's lowerdir= and PYTHONPATH cannot have
    one in a path.
    """
    host, colon, port = repository.registry.rpartition(":")
    registry = f"{host}+{port}" if colon and port.isdigit() else repository.registry
    return f"{registry}/{repository.path}/@{digest.algorithm}-{digest.encoded}"


def version_directory(key: str, repository: Repository, version: Version, images: Images) -> Found:
    """Return the directory of what *version* names in *repository*; if it has a digest, the digest decides.

    Blocks on the network to ask whether the repository has it. Raises NotFound, DigestUnresolved and the errors of the
    network.
    """
    digest = version.digest
    if digest is None and version.short_digest is not None:
        digest = repository.manifests.digest_beginning(version.short_digest)
    if digest is not None:
        return manifest_directory(key, repository, digest, images)
    tag = version.tag or DEFAULT_TAG
    if version.at is not None:
        return Found(ImageDirectory(key, images.pinned(repository, repository.tags.past.at(tag, version.at))), FOREVER)
    # A listing that has the tag proves that it exists; otherwise the registry is asked.
    return Found(TagDirectory(key, repository, tag, images), repository.tags.valid_s(tag))


def manifest_directory(key: str, repository: Repository, digest: Digest, images: Images) -> Found:
    """Return the directory of a manifest by digest. Blocks on the network for the manifest."""
    pinned = images.pinned(repository, digest)
    if not pinned.image.document.content:
        raise BadManifest(f"{pinned.image} is empty")
    return Found(ImageDirectory(key, pinned), FOREVER)


def manifest_named(name: str) -> Version | None:
    """Return the digest that *name* means in a repository; None if it is a tag or a reference (`app:v1`)."""
    if name.startswith("@"):
        try:
            return parse_version(name)[1]
        except InvalidName:
            return None
    try:
        return Version(None, Digest.parse_name(name)) if ":" in name else None
    except InvalidName:
        return None
