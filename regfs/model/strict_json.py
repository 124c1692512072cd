"""Parses JSON strictly: a document that two programs could read differently is refused.

Two readers that disagree about one document can be attacked (CVE-2021-41190). Python's json accepts more than other
programs, so these are refused here: other encodings than UTF-8, duplicate keys, keys that differ from known ones in
case only (Go accepts them), NaN and infinities, booleans in place of numbers. Used for manifests, configs, answers of
registries, credential files and policies. Pure; any thread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

from regfs.errors import BadContent, BadManifest, InvalidName, TooLarge, Unsupported
from regfs.model.digest import Digest

DOCUMENT_LIMIT = 4 * 1024 * 1024
_MAX_SIZE = 2**63 - 1


class Fields(NamedTuple):
    """One JSON object, and *where* in its document it is, for messages. A null value counts as absent everywhere.

    Every method raises *error* if the value has another type.
    """

    values: dict[str, object]
    where: str = ""
    error: type[BadContent] = BadManifest

    def has(self, key: str) -> bool:
        """Tell whether the object has *key* with a value other than null."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        """Return the string at *key*, *default* if it is absent."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fail(key, "is not a string")
        return printable(value)

    def size(self, key: str) -> int:
        """Return the number at *key*, 0 <= n < 2**63. Raises *error* if it is absent."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, "is not a whole number")
        if not 0 <= value <= _MAX_SIZE:
            self.fail(key, "is out of range")
        return value

    def boolean(self, key: str) -> bool:
        """Return the boolean at *key*, False if it is absent."""
        value = self.values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            self.fail(key, "is neither true nor false")
        return value

    def child(self, key: str) -> Fields | None:
        """Return the object at *key*, None if it is absent."""
        value = self.values.get(key)
        return None if value is None else self._object(value, key)

    def array(self, key: str, *, limit: int) -> list[object]:
        """Return the list at *key*, empty if it is absent. Raises TooLarge over *limit* elements."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(key, "is not a list")
        if len(value) > limit:
            raise TooLarge(f"{self.where}{key} has {len(value)} elements, more than {limit}")
        return value

    def children(self, key: str, *, limit: int) -> Iterator[Fields]:
        """Yield the elements of the list at *key*, which must all be objects. Raises TooLarge."""
        for position, element in enumerate(self.array(key, limit=limit)):
            yield self._object(element, f"{key}[{position}]")

    def texts(self, key: str, *, limit: int) -> tuple[str, ...]:
        """Return the list of strings at *key*, empty if it is absent. Raises TooLarge."""
        elements = self.array(key, limit=limit)
        if not all(isinstance(element, str) for element in elements):
            self.fail(key, "has an element that is not a string")
        return tuple(printable(str(element)) for element in elements)

    def mapping(self, key: str) -> dict[str, str]:
        """Return the object at *key*, whose values must be strings; empty if it is absent."""
        inner = self.child(key)
        return {} if inner is None else {printable(name): inner.text(name) for name in inner.values}

    def as_digest(self, text: str, key: str) -> Digest:
        """Parse *text*, found at *key*, as a digest. Raises *error*."""
        try:
            return Digest.parse(text)
        except InvalidName as reason:
            raise self.error(f"{self.where}{key}: {reason}") from None

    def refuse_variants(self, keys: Collection[str]) -> None:
        """Raise *error* if a key differs from one of *keys* in case only: only Go would read it as that key."""
        folded = {key.casefold(): key for key in keys}
        for key in self.values:
            if folded.get(key.casefold(), key) != key:
                self.fail(printable(key)[:80], f"is spelled {folded[key.casefold()]}")

    def fail(self, key: str, reason: str) -> NoReturn:
        """Raise *error*, naming the place in the document."""
        raise self.error(f"{self.where}{key} {reason}")

    def _object(self, value: object, key: str) -> Fields:
        if not isinstance(value, dict):
            self.fail(key, "is not an object")
        return Fields(value, f"{self.where}{key}.", self.error)


def parse_document(content: bytes, *, error: type[BadContent] = BadManifest, limit: int = DOCUMENT_LIMIT) -> Fields:
    """Parse *content* as a JSON object.

    Raises *error* if it is not one, or if programs could read it differently; TooLarge over *limit* bytes.
    Source: image-spec, considerations.md, "Canonicalization"; RFC 7493 (I-JSON).
    """
    if len(content) > limit:
        raise TooLarge(f"the document has {len(content)} bytes, more than {limit}")
    try:
        document = STRICT.decode(content.decode("utf-8", "strict"))
    except RecursionError:
        raise error("the document is nested too deeply") from None
    except ValueError as reason:  # UnicodeDecodeError, JSONDecodeError, the refusals below, integers of 4,300 digits
        raise error(f"not a JSON document: {printable(str(reason))[:200]}") from None
    if not isinstance(document, dict):
        raise error("the document is not a JSON object")
    return Fields(document, "", error)


@contextmanager
def naming(content: bytes) -> Iterator[None]:
    """Prefix the errors of the block with the digest of the document *content*."""
    try:
        yield
    except (BadContent, TooLarge, Unsupported) as error:
        raise type(error)(f"{Digest.of(content)}: {error}") from error


def printable(text: str) -> str:
    """Return *text* with lone surrogates replaced: JSON can have them, and no encoder accepts them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object has the same key twice")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
"""Decodes only JSON that all programs read alike. Raises ValueError, and RecursionError if it is nested too deeply."""
