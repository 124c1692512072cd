"""`regfs inspect`: an image on one screen: platforms, digests, program, build steps, referrers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from regfs.app.composition import build
from regfs.app.config import Config
from regfs.errors import BadContent, Interrupted, RegfsError, Unsupported
from regfs.images.image import Image
from regfs.images.named_images import full_name
from regfs.images.pinned_images import Images
from regfs.images.referring.contents import signed_by
from regfs.library.image import document_of
from regfs.model.attestations.kinds import SIGNATURES
from regfs.model.digest import Digest
from regfs.mount.mountpoint import mounts
from regfs.process.waiting.deadline import Deadline, under
from regfs.verbs.image import find_image
from regfs.verbs.image_argument import read_reference

_MOST_SIGNATURES = 20


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer, or a part of an artifact. *size* is in bytes, compressed; *command* made it, where that is known."""

    digest: str
    media_type: str
    size: int
    command: str


@dataclass(frozen=True, slots=True)
class Signature:
    """The *signers* and times that a signature names; *verified* is "by …", or "no: …" with the reason."""

    signers: tuple[str, ...]
    times: tuple[str, ...]
    verified: str


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest that refers to the image: a signature, an SBOM … *signatures* are those in it."""

    digest: str
    artifact_type: str
    subject: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Inspected:
    """One image or artifact. *config* is the config's own `config` object: Env, Cmd, Entrypoint, Labels …

    *referrers* is None where the registry does not tell, and *referrers_failure* the reason.
    """

    name: str
    digest: str
    media_type: str
    platforms: tuple[str, ...]
    manifest_digest: str
    platform: str
    created: str
    config: Mapping[str, Any]
    blobs: tuple[Blob, ...]
    annotations: Mapping[str, str]
    referrers: tuple[Referrer, ...] | None
    referrers_failure: str


def inspect(text: str, *, config: Config, environment: Mapping[str, str]) -> Inspected:
    """Return what the image *text* is. Blocks on the network for its documents, and fetches no layer.

    Raises RegfsErrors.
    """
    reference = read_reference(text, config.default_registry, mounts())
    with closing(build(config, environment)) as app:
        image = find_image(reference, app)
        with under(Deadline(config.timeout_s, is_users=True)):
            return _inspected(full_name(reference, image), image, app.images)


def _inspected(name: str, image: Image, images: Images) -> Inspected:
    document = document_of(image.config_content) if image.manifest.is_image else {}
    inner = document.get("config")
    referrers, failure = _referrers(image, images)
    return Inspected(
        name=name,
        digest=str(image.digest),
        media_type=image.document.media_type,
        platforms=tuple(sorted(image.entries)),
        manifest_digest=str(image.manifest_document.digest),
        platform=str(image.config.platform) if image.manifest.is_image else "",
        created=str(document.get("created") or ""),
        config=inner if isinstance(inner, dict) else {},
        blobs=_blobs(image),
        annotations=dict(image.manifest.annotations),
        referrers=referrers,
        referrers_failure=failure,
    )


def _referrers(image: Image, images: Images) -> tuple[tuple[Referrer, ...] | None, str]:
    """Return what refers to the image, or the reason why that is unknown, so that the rest is shown all the same."""
    try:
        found = images.referring.of(image).referrers
        signatures = _signatures(image, images)
    except Interrupted:
        raise
    except RegfsError as error:
        return None, str(error)
    return tuple(
        Referrer(str(each.digest), each.kind, str(each.subject), tuple(signatures.get(each.digest, ())))
        for each in found
    ), ""


def _signatures(image: Image, images: Images) -> dict[Digest, list[Signature]]:
    """Return the first signatures of the image, by the manifests that they are in."""
    found: dict[Digest, list[Signature]] = {}
    documents = [each for each in images.referring.documents(image) if each.place == SIGNATURES]
    for document in documents[:_MOST_SIGNATURES]:
        signed = signed_by(image.repository, document, images.judge)
        found.setdefault(document.referrer.digest, []).append(Signature(*signed))
    return found


def _blobs(image: Image) -> tuple[Blob, ...]:
    try:
        commands = {each.descriptor.digest: each.created_by for each in image.layers}
    except (BadContent, Unsupported):  # an artifact, or a config that says nothing of the layers
        commands = {}
    return tuple(
        Blob(str(each.digest), each.media_type, each.size, commands.get(each.digest, ""))
        for each in image.manifest.layers
    )
