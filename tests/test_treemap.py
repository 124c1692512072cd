"""The treemap of `regfs du --map`: areas as big as what they stand for, one inside the other."""

from __future__ import annotations

from regfs.cli.treemap import Area, treemap


def lines(areas: list[Area], width: int, height: int) -> list[str]:
    return ["".join(text for text, _ in pieces) for pieces in treemap(areas, width, height)]


def test_areas_are_cut_along_the_longer_side_in_their_share() -> None:
    drawn = lines([Area("b", 1, "1 B"), Area("a", 3, "3 B")], 40, 4)
    assert drawn[0] == "┌ a 3 B " + "─" * 21 + "┐┌ b 1 B ─┐"
    assert {len(line) for line in drawn} == {40}
    tall = lines([Area("b", 1, ""), Area("a", 3, "")], 12, 20)
    assert [number for number, line in enumerate(tall) if line.startswith("┌")] == [0, 15]


def test_what_is_inside_is_drawn_inside_and_in_another_style() -> None:
    below = Area("lib", 9, "9 B")
    pieces = list(treemap([Area("usr", 10, "10 B", [below])], 30, 8))
    assert "".join(text for text, _ in pieces[1]).startswith("│┌ lib 9 B ")
    assert {style for line in pieces for _, style in line} == {"green", "cyan"}


def test_what_has_no_room_is_left_out() -> None:
    drawn = lines([Area("big", 10_000, ""), Area("small", 1, ""), Area("empty", 0, "")], 40, 6)
    assert drawn[0].startswith("┌ big ")
    assert not any("small" in line or "empty" in line for line in drawn)
    assert lines([], 10, 2) == [" " * 10] * 2
    assert lines([Area("a", 0, "")], 10, 2) == [" " * 10] * 2
