"""Image configs: platform, diff ids and history of an image, from bytes to values.

A config that two programs could read differently raises BadManifest, as a manifest does. Used by images/. Source:
image-spec, config.md. Pure; any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from regfs.model.digest import Digest
from regfs.model.manifest import MAX_LAYERS, PLATFORM_KEYS, platform_in
from regfs.model.platform import UNKNOWN, Platform
from regfs.model.strict_json import DOCUMENT_LIMIT, Fields, naming, parse_document

_MAX_HISTORY = 65_536
_KEYS = ("rootfs", "history", "created", *PLATFORM_KEYS)


class History(NamedTuple):
    """One step of the image's build; *empty_layer* steps have no layer. *created* is a date as the builder wrote it."""

    created_by: str = ""
    empty_layer: bool = False
    created: str = ""


class ImageConfig(NamedTuple):
    """What regfs uses of an image's config. Nothing here is checked against the manifest's layers."""

    diff_ids: tuple[Digest, ...]
    history: tuple[History, ...]
    platform: Platform
    created: str = ""

    def layer_steps(self) -> tuple[History, ...]:
        """Return the build steps that made a layer, base first."""
        return tuple(step for step in self.history if not step.empty_layer)


def parse_config(content: bytes, *, limit: int = DOCUMENT_LIMIT) -> ImageConfig:
    """Parse the image config *content*.

    Without `rootfs` the result has no diff ids; the caller decides whether that is an error. Raises BadManifest, and
    TooLarge over *limit* bytes. Source: image-spec, config.md.
    """
    with naming(content):
        document = parse_document(content, limit=limit)
        document.refuse_variants(_KEYS)
        rootfs = document.child("rootfs") or Fields({}, "rootfs.")
        rootfs.refuse_variants(("type", "diff_ids"))
        if rootfs.text("type", "layers") != "layers":
            rootfs.fail("type", "is not 'layers'")
        diff_ids = tuple(rootfs.as_digest(text, "diff_ids") for text in rootfs.texts("diff_ids", limit=MAX_LAYERS))
        history = tuple(
            History(step.text("created_by"), step.boolean("empty_layer"), step.text("created"))
            for step in document.children("history", limit=_MAX_HISTORY)
        )
        platform = platform_in(document) or Platform(UNKNOWN, UNKNOWN)
        return ImageConfig(diff_ids, history, platform, document.text("created"))
