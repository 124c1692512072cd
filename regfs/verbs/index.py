"""`regfs index`: makes a SOCI index of an image, writes it into a directory or pushes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from regfs.app.composition import build
from regfs.app.config import Config
from regfs.errors import CacheFailure, InvalidOption
from regfs.images.soci_convert import Converted, convert
from regfs.model.digest import Digest
from regfs.model.media_types import OCI_INDEX
from regfs.model.names import Reference
from regfs.mount.mountpoint import mounts
from regfs.process.waiting.deadline import Deadline, under
from regfs.verbs.image import find_image
from regfs.verbs.image_argument import read_reference
from regfs.verbs.progress import Step, showing

Say = Callable[[str], None]
SUFFIX = "-soci"


class Wanted(NamedTuple):
    """The request: *tag* is the new image's, None for the image's own with SUFFIX. *output* is a directory."""

    image: str
    tag: str | None
    push: bool
    output: Path | None
    span_size: int
    least_layer: int


class Indexed(NamedTuple):
    """The full name of the image with its index, and notes for the user."""

    name: str
    notes: tuple[str, ...]


def index(wanted: Wanted, *, config: Config, environment: Mapping[str, str], say: Say) -> Indexed:
    """Make the SOCI index of an image; then push it, write it, or both. Blocks on the network; raises RegfsErrors."""
    reference = read_reference(wanted.image, config.default_registry, mounts())
    tag = _tag_of(wanted, reference)
    with closing(build(config, environment)) as app:
        image = find_image(reference, app)
        done: dict[Digest, tuple[int, int]] = {}

        def report(layer: Digest, size: int, bytes_done: int) -> None:
            done[layer] = bytes_done, size

        def steps() -> list[Step]:
            return [Step(f"index of {layer.encoded[:12]}", *counts) for layer, counts in list(done.items())]

        with (
            showing(steps, say=say, environment=environment),
            under(Deadline(config.timeout_s, is_users=True)),
        ):
            made = convert(image, span_size=wanted.span_size, least_layer=wanted.least_layer, report=report)
        notes = (*made.left_out, *app.journal.texts())
        if wanted.output is not None:
            _write_layout(made, wanted.output, tag)
        if wanted.push:
            with under(Deadline(config.timeout_s, is_users=True)):
                made.push(app.registry.pushes, reference.repository, tag)
    return Indexed(f"{reference.repository}:{tag}@{Digest.of(made.index)}", notes)


def _tag_of(wanted: Wanted, reference: Reference) -> str:
    """Return the new image's tag. Raises InvalidOption where the image was named without a tag."""
    if wanted.tag is not None:
        return wanted.tag
    if reference.tag is None or reference.digest is not None or reference.at is not None:
        raise InvalidOption("an image by its digest or by a time: --tag says what the indexed image is to be called")
    return f"{reference.tag}{SUFFIX}"


def _write_layout(made: Converted, directory: Path, tag: str) -> None:
    """Write the new blobs and documents, not the image's own, as an OCI image layout. Raises CacheFailure."""
    blobs = directory / "blobs" / "sha256"
    entry = {
        "mediaType": OCI_INDEX,
        "digest": str(Digest.of(made.index)),
        "size": len(made.index),
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    try:
        blobs.mkdir(parents=True, exist_ok=True)
        for content in (*made.ztocs, b"{}", made.soci_index, made.manifest, made.index):
            (blobs / Digest.of(content).encoded).write_bytes(content)
        (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        top = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
        (directory / "index.json").write_text(json.dumps(top))
    except OSError as error:
        raise CacheFailure(f"{directory}: {error.strerror}") from error
