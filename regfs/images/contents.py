"""What layers hold: passed once, indexed on disk, merged once; opened in milliseconds from then on.

A layer that was never passed is downloaded, verified and taken apart (layers/, in a process of its own where it is
big); its index is named by its diff id, so that images share it. The merged table of an image is named by the chain id
of its layers. Both are immutable files: who has one open may go on when it is dropped from the cache.
Used by image.py. Thread rule: any thread; one pass for each layer and one merge for each image, however many wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer as an image names it. *chunks* yields its raw bytes from cache or registry; *origin* is for messages."""

    descriptor: Descriptor
    diff_id: Digest
    origin: str
    chunks: Callable[[], Iterator[bytes]]


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """Return the identity of layers on top of each other. Source: image-spec, config.md, "Layer ChainID"."""
    if not diff_ids:
        return Digest.of(b"")
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = Digest.of(f"{chain} {diff_id}".encode())
    return chain
