"""The chain id of a stack of layers: what the merged table of an image is named by. Pure; any thread."""

from __future__ import annotations

from collections.abc import Sequence

from regfs.model.digest import Digest


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """Return the chain id of a stack of layers, base first. Source: image-spec, config.md, "Layer ChainID"."""
    if not diff_ids:
        return Digest.of(b"")
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = Digest.of(f"{chain} {diff_id}".encode())
    return chain
