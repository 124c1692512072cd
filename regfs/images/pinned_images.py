"""The images of a mount: a cache of recently used ones, and small values that name one as long as a node exists.

An Image is as big as its documents, so Images caches a bounded number; a PinnedImage is small, and nodes keep it.
Used by the tree and app/composition.py. Thread rule: any thread; nothing here makes a request.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from cachetools import LRUCache

from regfs.images.image import Image
from regfs.images.judging.judge import Judge
from regfs.images.layers.layer_cache import LayerCache
from regfs.images.referring.attached import Attachments
from regfs.images.referring.gathered import Referring
from regfs.images.repository import Repository
from regfs.model.digest import Digest
from regfs.model.names import RepositoryName
from regfs.model.platform import Platform

if TYPE_CHECKING:
    from regfs.images.comparing.trees import DifferingTrees

_IMAGES_KEPT = 128


class Images:
    """A cache of recently used images. *platform* is the one whose images indexes stand for. See Image."""

    def __init__(
        self, contents: LayerCache, platform: Platform, *, with_soci_v1: bool = False, judge: Judge | None = None
    ) -> None:
        """*judge* may refuse images; None allows all."""
        self._contents = contents
        self._platform = platform
        self._with_soci_v1 = with_soci_v1
        self.judge = judge
        self.referring = Referring()
        self.attachments = Attachments(self.referring, judge)
        self._comparing: DifferingTrees | None = None
        self._lock = threading.Lock()
        self._images: LRUCache[tuple[RepositoryName, Digest, str, bool], Image] = LRUCache(_IMAGES_KEPT)

    @property
    def comparing(self) -> DifferingTrees:
        """Makes trees of what differs between two images."""
        # Imported here: most mounts and verbs never compare, and all of them start with this module.
        from regfs.images.comparing.trees import DifferingTrees

        with self._lock:
            if self._comparing is None:
                self._comparing = DifferingTrees(self._contents)
            return self._comparing

    def image(
        self,
        repository: Repository,
        digest: Digest,
        media_type: str = "",
        *,
        announced: str = "",
        is_vouched_for: bool = False,
    ) -> Image:
        """Return the image that *digest* names in *repository*. Makes no request.

        *media_type* is the type in an answer of the registry. *announced* is the type in the index that names it; a
        document of another kind is refused under that name only. *is_vouched_for*: it is not judged, because it belongs
        to an image that the policy allows.
        """
        key = (repository.name, digest, announced, is_vouched_for)
        with self._lock:
            image = self._images.get(key)
            if image is None:
                image = Image(
                    repository,
                    digest,
                    media_type=media_type,
                    announced=announced,
                    platform=self._platform,
                    contents=self._contents,
                    with_soci_v1=self._with_soci_v1,
                    judge=None if is_vouched_for else self.judge,
                )
                self._images[key] = image
            return image

    def forget(self) -> None:
        """Forget the documents of all images: what the cache has lost is fetched and stored again at its next use."""
        with self._lock:
            self._images.clear()

    def pinned(
        self,
        repository: Repository,
        digest: Digest,
        media_type: str = "",
        *,
        announced: str = "",
        is_vouched_for: bool = False,
    ) -> PinnedImage:
        """Return the image as a small value, which may be kept. Makes no request."""
        return PinnedImage(self, repository, digest, media_type, announced, is_vouched_for)


class PinnedImage(NamedTuple):
    """An image by digest, without its documents: for nodes, which the kernel keeps in any number."""

    images: Images
    repository: Repository
    digest: Digest
    media_type: str
    announced: str
    is_vouched_for: bool

    @property
    def created_ns(self) -> int:
        """When the image was made, in nanoseconds since 1970; 0 while its config is not known. Makes no request."""
        return self.repository.manifests.created_ns(self.digest)

    @property
    def image(self) -> Image:
        """The image itself. Makes no request."""
        return self.images.image(
            self.repository, self.digest, self.media_type, announced=self.announced,
            is_vouched_for=self.is_vouched_for,
        )  # fmt: skip
