"""Resolves short digests: `@440129be81b2` means the one known digest of a repository that begins with these digits.

Known are the digests that its tags pointed to, the manifests that were fetched from it, and the entries of its indexes.
No request is made: with less knowledge, a short digest is an error and never another image.
Used by manifests.py. Thread rule: any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from regfs.errors import DigestUnresolved, InvalidName, RegfsError
from regfs.model.digest import Digest
from regfs.model.manifest import Index, parse_manifest
from regfs.model.names import RepositoryName
from regfs.store.references.references import References

# An index of each visited tag; reading one takes a millisecond or less.
_MOST_INDEXES = 1000


def digest_beginning(
    short: str, repository: RepositoryName, references: References, load: Callable[[Digest], bytes | None]
) -> Digest:
    """Return the known digest of *repository* whose hex digits begin with *short*; *load* returns cached documents.

    Raises DigestUnresolved if there is none, or several.
    """
    known = references.digests(repository)
    found = _beginning(short, known)
    for text in known[:_MOST_INDEXES]:
        with suppress(RegfsError):  # a cached document that cannot be read has no entries
            content = load(Digest.parse(text))
            parsed = parse_manifest(content, content_type="") if content is not None else None
            if isinstance(parsed, Index):
                found |= _beginning(short, (str(entry.digest) for entry in parsed.manifests))
    if len(found) == 1:
        with suppress(InvalidName):
            return Digest.parse(found.pop())
    if not found:
        raise DigestUnresolved(
            f"{repository}@{short}: no known digest of this repository begins so. Known are those of the tags and "
            "manifests that were opened; write the whole digest for another"
        )
    raise DigestUnresolved(
        f"{repository}@{short}: several digests begin so, write more of it: {', '.join(sorted(found))[:1000]}"
    )


def _beginning(short: str, digests: Iterable[str]) -> set[str]:
    return {text for text in digests if text.partition(":")[2].startswith(short)}
