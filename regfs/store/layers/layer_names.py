"""The file names of a layer in the cache: from its diff id, the digest of its tar stream. Pure."""

from __future__ import annotations

from regfs.model.digest import Digest

_USUAL = "sha256"


def name_of(diff_id: Digest) -> str:
    """Return the names of the layer's files, without suffix."""
    return diff_id.encoded if diff_id.algorithm == _USUAL else f"{diff_id.algorithm}-{diff_id.encoded}"


def diff_id_of(name: str) -> Digest:
    """Return the diff id in *name*. Raises InvalidName, Unsupported."""
    algorithm, dash, encoded = name.partition("-")
    return Digest.parse(f"{algorithm}:{encoded}" if dash else f"{_USUAL}:{name}")
