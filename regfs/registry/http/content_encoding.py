"""Bodies with a Content-Encoding, though the request asked for none.

A layer is often gzip itself, so neither the header nor the first bytes tell whether the body must be decompressed:
only the digest does. Such a body goes to an unnamed temporary file. It is checked as it came, and decompressed once if
that fails. Rare, hence simple. Used by blobs.py; belongs to the thread that reads.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from typing import IO

from regfs.errors import DigestMismatch
from regfs.model.manifest import Descriptor
from regfs.model.verification import verified
from regfs.registry.http.messages import Answer

_CHUNK = 256 * 1024
_IN_MEMORY = 1024 * 1024
# gzip adds at most this to incompressible bytes, generously.
_OVERHEAD = 64 * 1024


def identity_body(answer: Answer, descriptor: Descriptor, *, what: str) -> Iterator[bytes]:
    """Yield the bytes of *descriptor*, verified, out of the encoded body of *answer*.

    Raises DigestMismatch if neither the body nor its decompressed content has the digest.
    """
    limit = descriptor.size + descriptor.size // 100 + _OVERHEAD
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as raw, tempfile.SpooledTemporaryFile(_IN_MEMORY) as decoded:
        _keep(answer.chunks(), raw, limit, what=what)
        for body in (raw, decoded):
            if body is decoded:
                _keep(_decompressed(raw, what=what), decoded, descriptor.size, what=what)
            if _has_digest(body, descriptor):
                yield from _chunks(body)
                return
    raise DigestMismatch(f"{what}: neither the body with its Content-Encoding nor what it decodes to is right")


def _keep(chunks: Iterator[bytes], file: IO[bytes], limit: int, *, what: str) -> None:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise DigestMismatch(f"{what}: an encoded body of more than {limit} bytes")
        file.write(chunk)


def _decompressed(raw: IO[bytes], *, what: str) -> Iterator[bytes]:
    """Yield the content of the gzip or zlib stream *raw*, in bounded pieces."""
    inflater = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    try:
        for chunk in _chunks(raw):
            rest = chunk
            while rest and not inflater.eof:
                yield inflater.decompress(rest, _CHUNK)
                rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise DigestMismatch(f"{what}: an encoded body that cannot be decoded: {error}") from error


def _has_digest(file: IO[bytes], descriptor: Descriptor) -> bool:
    try:
        for _chunk in verified(_chunks(file), descriptor.digest, descriptor.size):
            pass
    except DigestMismatch:
        return False
    return True


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(_CHUNK):
        yield chunk
