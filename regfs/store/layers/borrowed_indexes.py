"""Copies the index of a plain layer from one cache into another, a temporary one, so that the layer is not read again.

Used by images/layers/layer_indexes.py. Thread rule: any thread.
"""

from __future__ import annotations

import shutil
from contextlib import suppress

from regfs.model.digest import Digest
from regfs.store.files.failures import failures_of
from regfs.store.layers.layer_store import LayerStore
from regfs.store.locks.file_locks import changing


def borrow(layer: Digest, *, lender: LayerStore, store: LayerStore) -> bool:
    """Put the index of *layer* that *lender* has into *store*; return whether it has one. Raises CacheFailure."""
    if not lender.has_names(layer):
        return False
    index, sums = store.index_path(layer), store.sums_path(layer)
    with suppress(FileNotFoundError), failures_of(index):
        store.budget.reserve_document(lender.index_path(layer).stat().st_size)
        index.parent.mkdir(parents=True, exist_ok=True)
        begun = index.with_name(f".{index.name}")
        with changing(store.root):
            shutil.copyfile(lender.sums_path(layer), sums)
            shutil.copyfile(lender.index_path(layer), begun)
            begun.rename(index)
        return True
    return False
