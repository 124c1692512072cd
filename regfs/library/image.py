"""Image: the image or artifact that a reference names, with its documents, layers and files. Any thread."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from regfs.images.image import Image as ImageOfCache
from regfs.images.referring.gathered import Referring
from regfs.library.failures import asking
from regfs.library.path import Path
from regfs.library.path_resolver import Files
from regfs.model.attestations.kinds import harmless
from regfs.tree.tag import path_by_digest


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, base first. *size* is that of the blob, in bytes; *created_by* the command of the build, if known."""

    digest: str
    diff_id: str
    size: int
    media_type: str
    created_by: str


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest that refers to the manifest *subject*: a signature, an SBOM … as the registry lists it, not verified.

    *size* is that of the manifest, in bytes; *created* is a time in RFC 3339, "" if unknown. *directory* shows the
    referring manifest as a mount does: `manifest.json`, `blobs`, `files`.
    """

    digest: str
    artifact_type: str
    size: int
    subject: str
    created: str
    directory: Path


class Image:
    """One image or artifact. The documents are those of the platform that the client asks for.

    A context manager; close() closes the client too if regfs.open() made it.
    """

    def __init__(
        self,
        found: ImageOfCache,
        files: Files,
        *,
        referring: Referring,
        name: str,
        timeout_s: float,
        close: Callable[[], None],
    ) -> None:
        self._found = found
        self._referring = referring
        self._timeout_s = timeout_s
        self._close = close
        self.name = name
        """The full name: `registry/repository:tag@digest`."""
        at = tuple(os.fsencode(path_by_digest(found.repository.name, found.digest)).split(b"/"))
        self.directory = Path(files, at, anchor=len(at))
        """The image's directory in a mount: `rootfs`, `layers`, `blobs`, `manifest.json` …"""
        self.rootfs = self.directory.below("rootfs")
        """All layers merged. The layers are fetched at the first use of a path in it."""

    @property
    def files(self) -> Path:
        """The files of an artifact, as its own tool would write them; for an image, its layers."""
        return self.directory.below("files")

    @property
    def contents(self) -> Path:
        """The image's or artifact's files: `rootfs`, or `files`. Blocks on the network."""
        return self.rootfs if any(each.name == "rootfs" for each in self.directory.iterdir()) else self.files

    @property
    def digest(self) -> str:
        """The digest that the reference names: that of the index if it names one."""
        return str(self._found.digest)

    @property
    def manifest_digest(self) -> str:
        """The digest of manifest_bytes."""
        with asking(self._timeout_s):
            return str(self._found.manifest_document.digest)

    @property
    def manifest_bytes(self) -> bytes:
        """The exact bytes of the manifest for the platform. Blocks on the network."""
        with asking(self._timeout_s):
            return self._found.manifest_document.content

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest for the platform, parsed. Blocks on the network."""
        return document_of(self.manifest_bytes)

    @property
    def config_bytes(self) -> bytes:
        """The exact bytes of the config. Blocks on the network."""
        with asking(self._timeout_s):
            return self._found.config_content

    @property
    def config(self) -> dict[str, Any]:
        """The config, parsed. Blocks on the network. Raises ValueError if an artifact's config is not JSON."""
        return document_of(self.config_bytes)

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers of files, base first. Blocks on the network; raises Unsupported for an artifact."""
        with asking(self._timeout_s):
            return tuple(
                Layer(
                    str(each.descriptor.digest), str(each.diff_id), each.descriptor.size, each.descriptor.media_type,
                    each.created_by,
                )
                for each in self._found.layers
            )  # fmt: skip

    def referrers(self, type: str | None = None) -> Sequence[Referrer]:  # noqa: A002 (what a reader expects)
        """Return what refers to the index and to the manifest for the platform, the oldest first.

        *type*: an artifact type or its beginning; None means all. `directory / "referrers"` has signatures and SBOMs
        decoded. Blocks on the network. Raises if the registry does not answer, rather than return an empty list.
        """
        with asking(self._timeout_s):
            found = self._referring.of(self._found).referrers
        by_type = self.directory.below("referrers").below("by-type")
        return tuple(
            Referrer(
                str(each.digest), each.kind, each.size, str(each.subject), each.created,
                by_type.below(harmless(each.kind)).below(str(each.digest)),
            )
            for each in found
            if each.kind.startswith(type or "")
        )  # fmt: skip

    def close(self) -> None:
        """Close what the image has open. Its paths cannot be used afterwards."""
        self._close()

    def __enter__(self) -> Image:
        """Return the image."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the image."""
        self.close()

    def __repr__(self) -> str:
        """Return the full name."""
        return f"<regfs.Image {self.name}>"


def document_of(content: bytes) -> dict[str, Any]:
    """Return the JSON object *content*; {} if it is another JSON value, as an artifact's config may be."""
    parsed = json.loads(content)
    return parsed if isinstance(parsed, dict) else {}
