"""Node ids: every bit has one meaning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regfs.model.node_id import (
    HASH_BITS,
    INVENTED,
    INVENTED_LAYER,
    KEY_MASK,
    LAST_INVENTED_ROW,
    LAST_SLOT,
    LAYER_SHIFT,
    MAX_ROWS,
    ROOT,
    ROW_MASK,
    SLOT_SHIFT,
    TABLE_ROOT,
    VIEW_BITS,
    invented_node,
    is_entry,
    next_invented,
    node_key,
)

VIEW_SHIFT = SLOT_SHIFT - VIEW_BITS
SLOTS = st.integers(1, LAST_SLOT)
LAYERS = st.integers(0, INVENTED_LAYER)
ROWS = st.integers(0, MAX_ROWS - 1)
VIEWS = st.integers(0, (1 << VIEW_BITS) - 1)


@given(SLOTS, VIEWS, LAYERS, ROWS)
def test_slot_view_layer_and_row_are_told_apart_in_every_node_id(slot: int, view: int, layer: int, row: int) -> None:
    node = slot << SLOT_SHIFT | view << VIEW_SHIFT | node_key(layer, row)
    assert is_entry(node)
    assert node < 1 << 63
    assert (node >> SLOT_SHIFT, node >> VIEW_SHIFT & (1 << VIEW_BITS) - 1) == (slot, view)
    assert (node >> LAYER_SHIFT & INVENTED_LAYER, node & ROW_MASK) == (layer, row)


@given(LAYERS, ROWS)
def test_a_table_without_views_leaves_their_bits_free(layer: int, row: int) -> None:
    assert node_key(layer, row) >> VIEW_SHIFT == 0
    assert node_key(layer, row) != TABLE_ROOT


def test_the_directory_of_a_table_has_a_key_that_no_row_has() -> None:
    assert TABLE_ROOT == KEY_MASK
    assert node_key(INVENTED_LAYER, LAST_INVENTED_ROW) < TABLE_ROOT


@given(st.text())
def test_an_invented_node_is_neither_the_root_nor_an_entry(key: str) -> None:
    for node in (invented_node(key), next_invented(invented_node(key))):
        assert not is_entry(node)
        assert INVENTED < node < INVENTED + (1 << HASH_BITS)
    assert not is_entry(ROOT)
    assert invented_node(key) != next_invented(invented_node(key))
