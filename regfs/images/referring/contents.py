"""Decodes a signature, an attestation or an SBOM: its text, and the facts about it.

Used by tree/views/referrers.py. Thread rule: any thread; blocks on the network for the blob.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from regfs.errors import BadContent, TooLarge, Unsupported
from regfs.images.judging.judge import Judge
from regfs.images.referring.gathered import Document
from regfs.images.repository import Repository
from regfs.model.attestations.documents import (
    IN_TOTO_PAYLOAD,
    MOST_BYTES,
    Decoded,
    cosign_payload,
    decode,
    notary_digest,
    statement_in,
)
from regfs.model.attestations.kinds import IN_TOTO, SBOM, SIMPLE_SIGNING
from regfs.model.digest import Digest

_UNREADABLE = (BadContent, TooLarge, Unsupported)
_NOTARY_PAYLOAD = "application/vnd.cncf.notary.payload.v1+json"
_MOST_TEXT = 500


def decoded_bytes(repository: Repository, document: Document) -> bytes:
    """Return the exact bytes of what was signed: the payload, or for an SBOM the predicate.

    Raises BadContent, TooLarge, Unsupported if it cannot be decoded, and the errors of the network.
    """
    decoded = _decoded(repository, document)
    return statement_in(decoded.payload).predicate if document.place == SBOM else decoded.payload


def info_text(repository: Repository, document: Document, subjects: Collection[Digest], judge: Judge | None) -> str:
    """Return the facts, one a line; *subjects* are the digests of the image. Raises the errors of the network.

    *judge* verifies signatures by the user's policy.
    """
    lines = "".join(f"{name}: {_line(text)}\n" for name, text in _facts(repository, document, subjects))
    return f"{lines}verified: {_line(_verification(repository, document, judge))}\n"


class Signed(NamedTuple):
    """The signers and times that a signature claims, and what verifies it: "by …", or "no: why"."""

    signers: tuple[str, ...]
    times: tuple[str, ...]
    verified: str


def signed_by(repository: Repository, document: Document, judge: Judge | None) -> Signed:
    """Return the signers of the signature *document*; *judge* has the policy. Raises the errors of the network."""
    try:
        decoded = _decoded(repository, document)
    except _UNREADABLE as error:
        return Signed((), (), _line(f"no: it cannot be decoded: {error}"))
    verified = _line(_verification(repository, document, judge))
    return Signed(tuple(map(_line, decoded.signers)), tuple(map(_line, decoded.times)), verified)


def _verification(repository: Repository, document: Document, judge: Judge | None) -> str:
    if document.finding.is_plain or document.finding.layer.media_type == IN_TOTO:
        return "no: it is not signed"
    if judge is None:
        return "no: there is no policy that names signers"
    return judge.verification(repository, document.referrer.subject, document.finding.layer)


def _decoded(repository: Repository, document: Document) -> Decoded:
    layer = document.finding.layer
    return decode(repository.blobs.small(layer, at_most=MOST_BYTES), layer.media_type, layer.annotations)


def _facts(repository: Repository, document: Document, subjects: Collection[Digest]) -> Iterator[tuple[str, str]]:
    referrer, layer = document.referrer, document.finding.layer
    if document.finding.is_plain:
        yield "form", f"{layer.media_type}, not signed"
    else:
        try:
            yield from _claims(_decoded(repository, document), {str(each) for each in (*subjects, referrer.subject)})
        except _UNREADABLE as error:
            yield "form", f"{layer.media_type}, which cannot be decoded: {error}"
    if referrer.created:
        yield "created", referrer.created
    yield "refers to", str(referrer.subject)
    yield "manifest", f"{referrer.digest}, found by {referrer.found_by}"
    yield "blob", f"{layer.digest} ({layer.media_type})"


def _claims(decoded: Decoded, subjects: set[str]) -> Iterator[tuple[str, str]]:
    yield "form", decoded.form
    about: tuple[str, ...] = ()
    if decoded.payload_type == IN_TOTO_PAYLOAD:
        statement = statement_in(decoded.payload)
        about = statement.subjects
        yield "predicate", statement.predicate_type
    elif decoded.payload_type == SIMPLE_SIGNING:
        about = (cosign_payload(decoded.payload).digest,)
    elif decoded.payload_type == _NOTARY_PAYLOAD:
        about = (notary_digest(decoded.payload),)
    right = sorted(subjects.intersection(about))
    if right:
        yield "says it is about", ", ".join(right)
    elif about:
        yield "says it is about", f"{about[0]}, which is another manifest"
    yield from (("signer", signer) for signer in decoded.signers)
    yield from (("signed", signed) for signed in decoded.times)


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_MOST_TEXT])
