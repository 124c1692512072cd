"""The names of the images in an archive: entries of index.json, and their annotations.

    io.containerd.image.name            docker.io/library/debian:12; containerd, docker save and regfs write it
    org.opencontainers.image.ref.name   12; the name given to skopeo, which may be a full name, too
    io.regfs.pinned                     true: the image was pinned where the archive was written
    io.regfs.converted-from             the digest of the image of Docker's type that this is, as an OCI one: skopeo
                                        finds no others by their names in a layout. It is not imported

Used by writing.py and reading.py. Pure; any thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from regfs.errors import BadContent, InvalidName, InvalidOption
from regfs.model.manifest import Descriptor
from regfs.model.names import Reference, is_attachment_tag, is_tag, parse_reference

FULL_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
PINNED = "io.regfs.pinned"
CONVERTED = "io.regfs.converted-from"
_MOST_TOLD = 10


class NamedImage(NamedTuple):
    """An image of an archive: its descriptor, its name, and the OCI form of one that has Docker's types."""

    descriptor: Descriptor
    reference: Reference
    is_pinned: bool = False
    converted: Descriptor | None = None


def entries_of(images: Sequence[NamedImage]) -> list[Descriptor]:
    """Return the entries in index.json of *images*, each with a name of its own: where tags are equal, the full one."""
    tags = Counter(image.reference.tag for image in images)
    entries = []
    for image in images:
        repository, tag = image.reference.repository, image.reference.tag
        full = f"{repository}@{image.descriptor.digest}" if tag is None else f"{repository}:{tag}"
        short = {} if tag is None else {REF_NAME: tag if tags[tag] == 1 else full}
        names = {FULL_NAME: full, **({PINNED: "true"} if image.is_pinned else {})}
        if image.converted is None:
            names |= short
        entries.append(replace(image.descriptor, annotations={**image.descriptor.annotations, **names}))
        if image.converted is not None:
            origin = {CONVERTED: str(image.descriptor.digest)}
            entries.append(replace(image.converted, annotations={**image.converted.annotations, **short, **origin}))
    return entries


def references_of(
    entries: Sequence[Descriptor], given: str | None, *, default_registry: str
) -> list[tuple[Descriptor, Reference]]:
    """Return the images among *entries* with their names; what only refers to them is left out.

    *given* names the one image that there is, or the repository of all that have a tag alone. Raises InvalidOption
    where an image has no name, or *given* fits none; BadContent where a name is not valid.
    """
    named: list[tuple[Descriptor, Reference]] = []
    nameless = []
    for entry in entries:
        name, tag = entry.annotations.get(FULL_NAME, ""), entry.annotations.get(REF_NAME, "")
        if is_attachment_tag(tag) or CONVERTED in entry.annotations:
            continue
        full = name or (tag if "/" in tag or ":" in tag else "")
        if full and given is None:
            named.append((entry, _parsed(full, default_registry)))
        elif full or tag:
            nameless.append((entry, _tag_of(full, tag, default_registry)))
        elif given is not None and len(entries) == 1:
            nameless.append((entry, ""))
    if given is not None:
        return _with_given(nameless, given, default_registry)
    if nameless or not named:
        raise InvalidOption(_nameless([tag for _, tag in nameless]))
    return named


def _with_given(
    nameless: Sequence[tuple[Descriptor, str]], given: str, default_registry: str
) -> list[tuple[Descriptor, Reference]]:
    reference = parse_reference(given, default_registry=default_registry)
    has_tag = ":" in given.rpartition("/")[2]
    if len(nameless) == 1 and (has_tag or not nameless[0][1]):
        return [(nameless[0][0], reference)]
    if has_tag or not nameless:
        raise InvalidOption(f"--as {given}: the archive has {len(nameless)} images with a name; name their repository")
    return [(entry, replace(reference, tag=tag)) for entry, tag in nameless]


def _tag_of(full: str, tag: str, default_registry: str) -> str:
    return (_parsed(full, default_registry).tag or "" if full else tag) or "latest"


def _parsed(name: str, default_registry: str) -> Reference:
    try:
        return parse_reference(name, default_registry=default_registry)
    except InvalidName as error:
        raise BadContent(
            f"the archive has an image of the name {name[:300]!r}: {error}; --as NAME gives another"
        ) from None


def _nameless(tags: Sequence[str]) -> str:
    if not tags:
        return "the archive names no image; --as REPOSITORY:TAG says what its image is to be called"
    told = ", ".join(tag for tag in tags[:_MOST_TOLD] if is_tag(tag)) or "some"
    return f"the archive has tags and no repository ({told}); --as REPOSITORY names it"
