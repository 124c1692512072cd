"""Writes images into a tar archive, as an OCI image layout: documents first, then blobs, each once.

Bytes are verified while they are copied. A layer comes from the cache if that has its blob as it was sent, otherwise
from the registry: an unpacked layer cannot be packed to the same bytes again. Used by verbs/export.py. Thread rule: one
thread writes; any thread may read the counter `written`.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO

from regfs.errors import Unsupported
from regfs.export.archive.names import REF_NAME, NamedImage, entries_of
from regfs.images.image import Image
from regfs.images.pinned_images import Images
from regfs.images.referring.attached import Attached, attached
from regfs.images.referring.gathered import TAGGED
from regfs.images.repository import Repository
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest
from regfs.model.media_types import DOCKER_INDEX, DOCKER_MANIFEST, OCI_MANIFEST, may_be_elsewhere
from regfs.model.names import Reference
from regfs.model.oci_layout import VERSION
from regfs.model.render import oci_manifest, render_index


@dataclass(slots=True)
class Contents:
    """What an archive has: images, what refers to them, documents by digest, blobs and the repositories of these."""

    images: list[NamedImage] = field(default_factory=list)
    referring: list[Descriptor] = field(default_factory=list)
    documents: dict[Digest, bytes] = field(default_factory=dict)
    blobs: dict[Digest, tuple[Repository, Descriptor]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The bytes of all documents and blobs."""
        return sum(map(len, self.documents.values())) + sum(each.size for _, each in self.blobs.values())

    def add(self, reference: Reference, image: Image, images: Images, *, is_pinned: bool) -> None:
        """Add *image*, which is one of *images*, with what refers to it and the policy allows.

        Blocks on the network for manifests; raises RegfsErrors.
        """
        top = image.document
        descriptor = Descriptor(top.media_type, top.digest, len(top.content))
        self.images.append(NamedImage(descriptor, reference, is_pinned, self._converted(image)))
        for document in (top, image.manifest_document):
            self.documents[document.digest] = document.content
        self._add_blobs(image.repository, image.manifest)
        for each in attached(images.referring, image, judge=images.judge):
            self._add_referrer(each)
            if isinstance(each.manifest, Manifest):
                self._add_blobs(image.repository, each.manifest)

    def _converted(self, image: Image) -> Descriptor | None:
        """Add the manifest as an OCI one, where the image has Docker's types."""
        if image.document.media_type not in (DOCKER_INDEX, DOCKER_MANIFEST):
            return None
        content = image.manifest_document.content
        if image.manifest.media_type == DOCKER_MANIFEST:
            content = oci_manifest(content)
        digest = Digest.of(content)
        self.documents[digest] = content
        return Descriptor(OCI_MANIFEST, digest, len(content))

    def _add_referrer(self, found: Attached) -> None:
        document, referrer = found.document, found.referrer
        if document.digest in self.documents:
            return
        self.documents[document.digest] = document.content
        is_tagged = referrer.found_by.startswith(TAGGED)
        self.referring.append(
            Descriptor(
                document.media_type,
                document.digest,
                len(document.content),
                artifact_type=referrer.kind or None,
                annotations={REF_NAME: referrer.found_by.removeprefix(TAGGED)} if is_tagged else {},
            )
        )

    def _add_blobs(self, repository: Repository, manifest: Manifest) -> None:
        for blob in (manifest.config, *manifest.layers):
            self.blobs.setdefault(blob.digest, (repository, blob))


class ArchiveWriter:
    """Writes *contents* to *file*. `written` counts the bytes of blobs and documents that are written.

    `left_out` has a sentence for each layer of a type that may be kept outside of registries, where this one lacks it.
    """

    def __init__(self, contents: Contents, file: IO[bytes]) -> None:
        self.written = 0
        self.left_out: list[str] = []
        self._contents = contents
        self._file = file

    def write(self) -> None:
        """Write the archive. Blocks on the network; raises RegfsErrors (DigestMismatch too) and OSError."""
        contents = self._contents
        entries = [*entries_of(contents.images), *contents.referring]
        with tarfile.open(fileobj=self._file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, "oci-layout", VERSION)
            _add(archive, "index.json", render_index(entries))
            for digest, content in contents.documents.items():
                _add(archive, _place(digest), content)
                self.written += len(content)
            # Small ones first: a reader can know what an image is before it reads the layers.
            for repository, blob in sorted(contents.blobs.values(), key=lambda found: found[1].size):
                if blob.digest not in contents.documents:
                    self._write_blob(archive, repository, blob)

    def _write_blob(self, archive: tarfile.TarFile, repository: Repository, blob: Descriptor) -> None:
        chunks = iter(_chunks(repository, blob))
        try:
            first = next(chunks, b"")
        except Unsupported as lacking:
            if not may_be_elsewhere(blob.media_type):
                raise
            self.left_out.append(f"the archive lacks {blob.digest}: {lacking}")
            return
        content = _Chunks(self._counted(chain([first], chunks)))
        archive.addfile(_info(_place(blob.digest), blob.size), content)  # type: ignore[arg-type]

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.written += len(chunk)
            yield chunk


def _chunks(repository: Repository, blob: Descriptor) -> Iterable[bytes]:
    return [blob.content] if blob.content is not None else repository.blobs.chunks(blob)


def _place(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _info(name: str, size: int) -> tarfile.TarInfo:
    """Return a header without anything of this machine: the same images make the same archive."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_info(name, len(content)), io.BytesIO(content))


class _Chunks:
    """Chunks as a file that is read to its end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def read(self, size: int) -> bytes:
        """Return *size* bytes, fewer at the end."""
        parts = [self._left[:size]]
        self._left = self._left[size:]
        missing = size - len(parts[0])
        while missing:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            parts.append(chunk[:missing])
            self._left = chunk[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)
