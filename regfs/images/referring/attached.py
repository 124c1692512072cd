"""Reads the manifests that refer to an image, with their exact bytes, to put them into an image layout.

Used by tree/views/oci.py and export/archive/. Thread rule: any thread; blocks on the network.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from cachetools import TTLCache

from regfs.errors import AccessDenied, BadContent, NotFound, TooLarge, Unsupported
from regfs.images.answers.manifests import Document
from regfs.images.answers.remembered import UNREACHABLE
from regfs.images.image import Image
from regfs.images.judging.judge import Judge
from regfs.images.referring.gathered import KEPT_S, Referrer, Referring, key_of, manifest_of, tell_some
from regfs.model.digest import Digest
from regfs.model.manifest import Index, Manifest

MOST = 200
MOST_BYTES = 4 << 20
"""How many manifests a layout has besides the image's, and of how many bytes. If there are more, that is noted."""
_KEPT = 4
_LEFT_OUT = (AccessDenied, BadContent, NotFound, TooLarge, Unsupported, *UNREACHABLE)


class Attached(NamedTuple):
    """A manifest that refers to an image: how it was found, its bytes, and what they say."""

    referrer: Referrer
    document: Document
    manifest: Manifest | Index


class Attachments:
    """Caches attached() for some images, so that one copy of a layout reads the manifests once. One for each mount."""

    def __init__(self, referring: Referring, judge: Judge | None) -> None:
        self._referring = referring
        self._judge = judge
        self._lock = threading.Lock()
        self._kept: TTLCache[object, list[Attached]] = TTLCache(_KEPT, KEPT_S)

    def of(self, image: Image, within: Image | None = None) -> list[Attached]:
        """Return what refers to *image*. See attached()."""
        key = key_of(image, within)
        with self._lock:
            known = self._kept.get(key)
        if known is None:
            known = attached(self._referring, image, within, judge=self._judge)
            with self._lock:
                self._kept[key] = known
        return known


def attached(referring: Referring, image: Image, within: Image | None = None, *, judge: Judge | None) -> list[Attached]:
    """Return what refers to *image*, as Referring.of() finds it. Reads manifests and no blob; blocks on the network.

    At most MOST manifests of MOST_BYTES together. What is beyond, or cannot be fetched, is left out and noted, so that
    a cached image can be copied without a registry. *judge* has the policy, which decides about images among them.
    """
    try:
        referrers = referring.of(image, within).referrers
    except _LEFT_OUT as reason:
        image.contents.note(f"{image}: oci/ has it without what refers to it: {reason}")
        return []
    found: list[Attached] = []
    left_out: list[tuple[Digest, Exception]] = []
    size = 0
    for each in referrers:
        try:
            manifest = manifest_of(image.repository, each)
            if judge is not None and isinstance(manifest, Manifest) and manifest.may_have_rootfs:
                judge.judge(image.repository, each.digest)  # it only says that it refers to an image that is allowed
            document = image.repository.manifests.document(each.digest)
        except _LEFT_OUT as reason:
            left_out.append((each.digest, reason))
        else:
            size += len(document.content)
            found.append(Attached(each, document, manifest))
        if len(found) > MOST or size > MOST_BYTES or len(left_out) > MOST:
            found = found[:MOST] if size <= MOST_BYTES else found[:-1]
            image.contents.note(f"{image}: of {len(referrers)} manifests that refer to it oci/ has {len(found)}")
            break
    tell_some(image, "is left out of oci/", left_out)
    return found
