"""The manifests that refer to an image, with their exact bytes: for an image layout that has them too.

Used by tree/views/oci.py. Thread rule: any thread; blocks on the network.
"""

from __future__ import annotations

from typing import NamedTuple

from regfs.errors import AccessDenied, BadContent, NotFound, TooLarge, Unsupported
from regfs.images.answers.manifests import Document
from regfs.images.answers.remembered import UNREACHABLE
from regfs.images.image import Image
from regfs.images.referring.gathered import Referrer, Referring, manifest_of
from regfs.model.manifest import Index, Manifest

MOST = 200
"""How many manifests a layout has beside that of the image; what is beyond is told in `.regfs/errors`."""
_LEFT_OUT = (AccessDenied, BadContent, NotFound, TooLarge, Unsupported, *UNREACHABLE)


class Attached(NamedTuple):
    """A manifest that refers to an image: how it was found, its bytes, and what they say."""

    referrer: Referrer
    document: Document
    manifest: Manifest | Index


def attached(referring: Referring, image: Image, within: Image | None = None) -> list[Attached]:
    """Return what refers to *image*; see Referring.of(). Reads manifests and no blob.

    What is not to be had is left out, and noted: an image that is here can be copied without a registry.
    """
    try:
        referrers = referring.of(image, within).referrers
    except _LEFT_OUT as reason:
        image.contents.note(f"{image}: oci/ has it without what refers to it: {reason}")
        return []
    if len(referrers) > MOST:
        image.contents.note(f"{image}: of {len(referrers)} referrers oci/ has the first {MOST}")
    found = []
    for each in referrers[:MOST]:
        try:
            manifest = manifest_of(image.repository, each)
            found.append(Attached(each, image.repository.manifests.document(each.digest), manifest))
        except _LEFT_OUT as reason:
            image.contents.note(f"{image}: {each.digest} is left out of oci/: {reason}")
    return found
