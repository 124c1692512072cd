"""What a whiteout hides."""

from __future__ import annotations

import pytest

from regfs.errors import BadLayer
from regfs.model.whiteout import hidden_name, marker_of


@pytest.mark.parametrize("name", [b"name", b"...", b"\xff", b".wh.twice"])
def test_a_marker_hides_the_name_after_its_prefix(name: bytes) -> None:
    assert hidden_name(marker_of(name)) == name


@pytest.mark.parametrize("marker", [b".wh.", b".wh..", b".wh..."])
def test_a_marker_of_no_name_is_refused(marker: bytes) -> None:
    with pytest.raises(BadLayer):
        hidden_name(marker)
