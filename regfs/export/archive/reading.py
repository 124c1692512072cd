"""Reads images from a tar archive with an OCI image layout into the cache; its members may be in any order.

Every blob is verified against its digest before it is kept, and every layer against its diff id when it is unpacked.
Members that are not part of a layout are skipped. Used by verbs/import_archive.py. Thread rule: one thread reads the
archive; any thread may read the counter `read`.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO

from regfs.errors import BadContent, InvalidName, TooLarge, Unsupported
from regfs.export.archive.names import REF_NAME
from regfs.images.adoption import Adoption
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Index, Manifest, parse_manifest
from regfs.model.media_types import OCI_INDEX
from regfs.model.names import RepositoryName, is_attachment_tag
from regfs.model.strict_json import DOCUMENT_LIMIT
from regfs.model.verification import verified

_BLOB = re.compile(r"(?:\./)?blobs/([a-z0-9+._-]+)/([0-9a-f]+)", re.ASCII)
_INDEX, _DOCKER = "index.json", "manifest.json"
_READ = 1 << 20
_MOST_MEMBERS = 100_000
_UNREADABLE = (BadContent, TooLarge, Unsupported)


class ArchiveReader:
    """Reads the archive *file* into *adoption*. `read` counts the bytes of blobs that were read."""

    def __init__(self, file: IO[bytes], adoption: Adoption) -> None:
        self.read = 0
        self._file = file
        self._adoption = adoption

    def entries(self) -> tuple[Descriptor, ...]:
        """Keep all blobs, and return the entries of index.json.

        Raises BadContent where the file is no such archive or ends too soon, DigestMismatch, CacheFailure.
        """
        index, others = b"", set[str]()
        try:
            with tarfile.open(fileobj=self._file, mode="r|*") as archive:
                for number, member in enumerate(archive):
                    archive.members = []  # type: ignore[attr-defined]  # tarfile remembers each
                    if number > _MOST_MEMBERS:
                        raise TooLarge(f"the archive has more than {_MOST_MEMBERS} members")
                    name = member.name.removeprefix("./")
                    if not member.isreg():
                        continue
                    if found := _BLOB.fullmatch(member.name):
                        self._keep(archive, member, _digest(*found.groups()))
                    elif name == _INDEX:
                        index = _small(archive, member)
                    elif name == _DOCKER:
                        others.add(name)
        except (tarfile.TarError, EOFError) as error:
            raise BadContent(f"the file is not a tar archive, or ends too soon: {error}") from error
        if not index and others:
            raise Unsupported(
                "the archive is of docker's own form, without index.json; skopeo copy docker-archive:FILE "
                "oci-archive:OTHER makes one that can be imported"
            )
        if not index:
            raise BadContent("the archive has no index.json: it is not an OCI image layout")
        parsed = parse_manifest(index, content_type=OCI_INDEX)
        if not isinstance(parsed, Index):
            raise BadContent("index.json of the archive is not an index")
        return parsed.manifests

    def _keep(self, archive: tarfile.TarFile, member: tarfile.TarInfo, digest: Digest) -> None:
        file = archive.extractfile(member)
        assert file is not None

        def chunks() -> Iterator[bytes]:
            while chunk := file.read(_READ):
                self.read += len(chunk)
                yield chunk

        self._adoption.receive(digest, member.size, verified(chunks(), digest, member.size, what=member.name))


def adopt_names(
    images: Sequence[tuple[Descriptor, RepositoryName, str | None]],
    entries: Sequence[Descriptor],
    adoption: Adoption,
) -> None:
    """Make *images* known by their names, and those of *entries* that refer to them as their referrers.

    Raises BadContent where the archive lacks a manifest.
    """
    homes: dict[Digest, RepositoryName] = {}
    for entry, repository, tag in images:
        for digest, media_type in _manifests(entry, adoption).items():
            adoption.manifest(repository, digest, media_type)
            homes[digest] = repository
        if tag is not None:
            adoption.tag(repository, tag, entry)
    referring: dict[tuple[RepositoryName, Digest], list[Descriptor]] = {}
    waiting, is_new = list(entries), True
    while is_new:  # what refers to a referrer comes after it
        is_new = False
        for entry in list(waiting):
            found = _subject_of(entry, homes, adoption)
            if found is None:
                continue
            subject, is_tag = found
            repository = homes[subject]
            waiting.remove(entry)
            is_new = True
            homes.setdefault(entry.digest, repository)
            adoption.manifest(repository, entry.digest, entry.media_type)
            if is_tag:
                adoption.tag(repository, entry.annotations[REF_NAME], entry)
            else:
                referring.setdefault((repository, subject), []).append(entry)
    for digest, repository in homes.items():  # that nothing refers to one is known, too
        adoption.referrers(repository, digest, referring.get((repository, digest), []))


def _manifests(entry: Descriptor, adoption: Adoption) -> Mapping[Digest, str]:
    """Return the manifest of *entry* and, below an index, those that the archive has, with their media types.

    Raises BadContent where the archive lacks the manifest of *entry*.
    """
    content = adoption.document(entry.digest)
    if content is None:
        raise BadContent(f"the archive lacks the manifest {entry.digest} that its index.json names")
    parsed = parse_manifest(content, content_type=entry.media_type)
    found = {entry.digest: entry.media_type}
    if isinstance(parsed, Index):
        found |= {each.digest: each.media_type for each in parsed.manifests if adoption.document(each.digest)}
    return found


def _subject_of(
    entry: Descriptor, homes: Mapping[Digest, RepositoryName], adoption: Adoption
) -> tuple[Digest, bool] | None:
    """Return the manifest of *homes* that *entry* refers to, and whether by a tag of cosign's; None for none."""
    tag = entry.annotations.get(REF_NAME, "")
    if is_attachment_tag(tag):
        with suppress(InvalidName):
            digest = Digest.parse(tag.partition(".")[0].replace("-", ":", 1))
            return (digest, True) if digest in homes else None
    content = adoption.document(entry.digest)
    if content is None:
        return None
    try:
        parsed: Manifest | Index = parse_manifest(content, content_type=entry.media_type)
    except _UNREADABLE:
        return None
    subject = parsed.subject
    return (subject.digest, False) if subject is not None and subject.digest in homes else None


def _digest(algorithm: str | None, encoded: str | None) -> Digest:
    try:
        return Digest.parse(f"{algorithm}:{encoded}")
    except InvalidName as error:
        raise BadContent(f"the archive has a blob under no digest: {error}") from error


def _small(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > DOCUMENT_LIMIT:
        raise TooLarge(f"{member.name} of the archive has {member.size} bytes")
    file = archive.extractfile(member)
    assert file is not None
    return file.read()
