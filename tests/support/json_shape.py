"""Compares what a verb prints as JSON with the fields that are documented (regfs/cli/json_output.py)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

Shape = dict[str, Any]
_TOKEN = re.compile(r"\s*([a-z][a-z0-9_]*\??|[\[\](),])")


def shape_of(fields: str) -> Shape:
    """Return what *fields* documents: names, each with what may be in it: None, an object or a list of objects."""
    tokens = iter(_TOKEN.findall(fields))

    def inside(end: str) -> Shape:
        shape: Shape = {}
        name = ""
        for token in tokens:
            if token == end:
                return shape
            if token == "[":
                shape[name] = [inside("]")]
            elif token == "(":
                shape[name] = inside(")")
            elif token != ",":
                name = token
                shape[name] = None
        assert not end, f"{fields} lacks a {end}"
        return shape

    return inside("")


def check(
    printed: dict[str, Any], shape: Shape, where: Sequence[str], *, may_be_empty: Collection[tuple[str, ...]] = ()
) -> None:
    """Insist that *printed* has exactly the fields of *shape*, with null only where that allows it.

    A list whose objects are documented must have one, unless its path *may_be_empty*.
    """
    assert set(printed) == {name.rstrip("?") for name in shape}, where
    for name, inner in shape.items():
        value, path = printed[name.rstrip("?")], (*where, name.rstrip("?"))
        if value is None:
            assert name.endswith("?"), path
        elif isinstance(inner, dict):
            check(value, inner, path, may_be_empty=may_be_empty)
        elif isinstance(inner, list):
            assert value or path in may_be_empty, f"{path} shows nothing of what is documented"
            for each in value:
                check(each, inner[0], path, may_be_empty=may_be_empty)
        else:
            objects = value if isinstance(value, list) else []
            assert not any(isinstance(each, dict) for each in objects), f"the fields in {path} are not documented"
