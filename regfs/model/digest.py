"""Digests: `sha256:<hex>` and those of other algorithms.

A digest is of the bytes as stored (a compressed layer, a manifest); a diff id is the digest of a layer's tar. Both have
this type. A Digest is well-formed, so that it is safe in a URL or a file name. Source: image-spec, descriptor.md,
"Digests". Pure; any thread.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol, cast

from regfs.errors import InvalidName, Unsupported

_GRAMMAR = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)", re.ASCII)
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128, "blake3": 64}
_HEX = re.compile(r"[a-f0-9]+", re.ASCII)
_HEX_OF_SHA256 = re.compile(r"[a-f0-9]{64}", re.ASCII)
_SHORT = re.compile(r"[a-f0-9]{12,63}", re.ASCII)
REGISTERED = frozenset(_HEX_LENGTHS)
"""The registered algorithms. `app:v1` has the form of a digest too, but is a reference."""
_VERIFIABLE = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}


class Hasher(Protocol):
    """A hash object, as hashlib and blake3 make it."""

    def update(self, chunk: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm and its encoded value, `sha256:<64 lower-case hex digits>`.

    Raises InvalidName if the text does not follow the grammar, or has the wrong length or alphabet for a registered
    algorithm.
    """

    algorithm: str
    encoded: str

    def __post_init__(self) -> None:
        if self.algorithm == "sha256" and _HEX_OF_SHA256.fullmatch(self.encoded):  # the usual case
            return
        text = f"{self.algorithm}:{self.encoded}"
        if len(text) > 255 or not _GRAMMAR.fullmatch(text):
            raise InvalidName(f"{text[:300]!r} is not a digest")
        length = _HEX_LENGTHS.get(self.algorithm)
        if length is not None and (len(self.encoded) != length or not _HEX.fullmatch(self.encoded)):
            raise InvalidName(f"{text!r} is not a digest: {self.algorithm} has {length} lower-case hex digits")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Return the digest that *text* spells. Raises InvalidName."""
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise InvalidName(f"{text[:300]!r} is not a digest")
        return cls(algorithm, encoded)

    @classmethod
    def parse_name(cls, text: str) -> Digest:
        """Return the digest that the file name *text* spells: `sha256:<hex>`, or `sha256-<hex>` without a colon.

        Only registered algorithms are accepted: `app:v1` has the form of a digest too, but is a reference. Raises
        InvalidName.
        """
        algorithm, dash, encoded = text.partition("-")
        digest = cls(algorithm, encoded) if dash and algorithm in REGISTERED else cls.parse(text)
        if digest.algorithm not in REGISTERED:
            raise InvalidName(f"{text[:300]!r} is not a digest of a known algorithm")
        return digest

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """Return the sha256 digest of *content*."""
        return cls("sha256", hashlib.sha256(content).hexdigest())

    def hasher(self) -> Hasher:
        """Return a new hash object of this algorithm. Raises Unsupported if Python has none."""
        if self.algorithm == "blake3":
            return self._blake3()
        try:
            return _VERIFIABLE[self.algorithm]()
        except KeyError:
            raise Unsupported(f"{self}: regfs cannot verify {self.algorithm} digests") from None

    def _blake3(self) -> Hasher:
        try:
            import blake3  # an optional package: few digests use this algorithm yet
        except ImportError:
            raise Unsupported(
                f"{self}: blake3 digests are verified where its package is installed: pip install 'regfs[blake3]'"
            ) from None
        return cast(Hasher, blake3.blake3())

    def matches(self, content: bytes) -> bool:
        """Tell whether *content* has this digest. Raises Unsupported."""
        hasher = self.hasher()
        hasher.update(content)
        return hasher.hexdigest() == self.encoded

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


def is_short_digest(text: str) -> bool:
    """Tell whether *text* is 12 to 63 hex digits: the beginning of a digest."""
    return _SHORT.fullmatch(text) is not None
