"""The JSON of a table of contents: read one entry at a time, strictly, whatever the blocks that it comes in."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import BadLayer
from regfs.layers.formats.toc_json import MAX_ELEMENT, entries_and_runs_of, entries_of
from regfs.layers.formats.toc_text import PlainRun

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
objects = st.dictionaries(st.text(), values, max_size=4)


def blocks(text: str | bytes, size: int = 7) -> Iterator[bytes]:
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return (content[at : at + size] for at in range(0, len(content), size))


def read(text: str | bytes, size: int = 7) -> list[dict[str, object]]:
    return list(entries_of(blocks(text, size)))


@given(
    st.lists(objects, max_size=4),
    st.dictionaries(st.text(), values, max_size=3),
    st.integers(1, 200),
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_any_table_is_read_as_the_standard_library_reads_it(
    entries: list[dict[str, object]],
    others: dict[str, object],
    size: int,
    first: bool,
    indent: str | int | None,
    ascii_only: bool,
) -> None:
    others = {key: value for key, value in others.items() if key not in ("version", "entries")}
    table = {"entries": entries, **others, "version": 1} if first else {"version": 1, **others, "entries": entries}
    assert read(json.dumps(table, indent=indent, ensure_ascii=ascii_only), size) == entries


DIGEST = "sha256:" + "0123456789abcdef" * 4
PLAIN = {"name": "a/b", "type": "reg", "size": 5, "modtime": "2024-05-13T00:00:00Z", "mode": 420, "offset": 7}
STORAGE = {
    "type": "reg",
    "name": "a/b",
    "mode": 420,
    "size": 5,
    "uid": 7,
    "digest": DIGEST,
    "offset": 7,
    "endOffset": 9,
}


def counted(entry: dict[str, object]) -> dict[str, object]:
    """Return *entry* without the fields that do not count."""
    passed = {"userName", "groupName", "NumLink", "accesstime", "changetime"}
    return {key: value for key, value in entry.items() if key not in passed}


plain_objects = st.sampled_from(
    [
        {**PLAIN, "digest": DIGEST, "chunkDigest": DIGEST},
        {**PLAIN, "userName": "root", "offset": 8, "digest": DIGEST},
        {"name": "a/", "type": "dir", "mode": 493, "uid": 1, "gid": 2, "groupName": ""},
        {"name": "a/l", "type": "symlink", "modtime": "2024-05-13T00:00:00Z", "linkName": "../b", "NumLink": 0},
        STORAGE,
        {**STORAGE, "changetime": "2024-05-13T00:00:00.5Z"},
    ]
)
like_plain_objects = st.sampled_from(
    [
        {**PLAIN, "name": '{"name":"a","type":"reg"},{"name":"b'},
        {**PLAIN, "name": "\\u0041\t"},
        {**PLAIN, "name": "a\x7f", "digest": DIGEST},
        {**PLAIN, "name": "ü", "digest": DIGEST},
        {**PLAIN, "digest": DIGEST.upper()},
        {**PLAIN, "digest": DIGEST, "chunkDigest": DIGEST[:-1] + "0"},
        {**PLAIN, "chunkDigest": DIGEST},
        {**PLAIN, "size": 5.5},
        {**PLAIN, "size": True},
        {**PLAIN, "xattrs": {"user.a": "AA=="}},
        {**PLAIN, "within": [PLAIN, {"name": "a", "type": "dir"}, PLAIN]},
        {"type": "chunk", "name": "a/b", "offset": 9},
        {"name": "a/b", "type": "chunk", "offset": 9},
    ]
)


@given(
    st.lists(plain_objects | like_plain_objects | objects, max_size=30),
    st.sampled_from([(None, (",", ":")), (None, (", ", ": ")), ("\t", None), (1, (" , ", " : "))]),
    st.integers(1, 3000),
    st.booleans(),
)
def test_entries_that_come_in_runs_are_what_the_standard_library_reads(
    entries: list[dict[str, object]],
    style: tuple[str | int | None, tuple[str, str] | None],
    size: int,
    ascii_only: bool,
) -> None:
    table = {"version": 1, "entries": entries}
    text = json.dumps(table, indent=style[0], separators=style[1], ensure_ascii=ascii_only)
    left = list(entries)
    for item in entries_and_runs_of(blocks(text, size)):
        if not isinstance(item, PlainRun):
            entry = left.pop(0)
            assert item in (entry, counted(entry))
            continue
        for number in range(len(item)):
            assert item.fields(number) == counted(left.pop(0))
        assert not left or left[0].get("type") != "chunk"
    assert not left


def test_nearly_all_entries_come_in_runs_whatever_stands_between_them() -> None:
    odd = {**PLAIN, "xattrs": {"user.a": "AA=="}}
    table = {"version": 1, "entries": [*[{**PLAIN, "digest": DIGEST}] * 500, odd] * 10}
    found = list(entries_and_runs_of(blocks(json.dumps(table), 1 << 14)))
    assert sum(len(item) for item in found if isinstance(item, PlainRun)) == 5000
    assert found.count(odd) == 10


def test_a_comma_that_is_missing_or_too_much_between_plain_entries_is_no_table() -> None:
    one = json.dumps({**PLAIN, "digest": DIGEST})
    for wrong in (f"{one},,{one},{one}", f"{one} {one},{one}", f"{one},{one},{{}} {one},{one}", f",{one},{one}"):
        with pytest.raises(BadLayer):
            list(entries_and_runs_of(blocks(f'{{"version":1,"entries":[{one},{wrong}]}}', 1 << 14)))


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\0b", "a\x1fb"])
def test_a_control_character_in_a_name_is_no_json_in_a_run_either(name: str) -> None:
    entries = json.dumps([{**PLAIN, "name": "a@b"}, {**PLAIN, "digest": DIGEST}] * 3).replace("@", name[1])
    with pytest.raises(BadLayer, match="cannot be read"):
        list(entries_and_runs_of(blocks(f'{{"version":1,"entries":{entries}}}', 1 << 14)))


@pytest.mark.parametrize("number", ["-0.0", "1.5", "12e-3", "-1.25E+2"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_a_number_that_two_blocks_share_is_one_number(number: str, size: int) -> None:
    table = f'{{"version":1,"entries":[{{"a":{number}}}],"b":{number}}}'
    assert read(table, size) == [{"a": float(number)}]


def test_go_writes_null_for_no_entries() -> None:
    assert read('{"version":1,"entries":null}') == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"version":1}',
        '{"entries":[]}',
        '{"version":2,"entries":[]}',
        '{"version":"1","entries":[]}',
        '{"version":1,"entries":{}}',
        '{"version":1,"entries":[1]}',
        '{"version":1,"entries":[{}',
        '{"version":1,"entries":[{}]',
        '{"version":1,"entries":[{}],}',
        '{"version":1,"entries":[{},]}',
        '{"version":1,"entries":[{}]}x',
        '{"version":1,"entries":[{}]}{}',
        '{"version":1,"entries":[],"entries":[{}]}',
        '{"version":1,"version":1,"entries":[]}',
        '{"version":1,"entries":[{"name":"a","name":"b"}]}',
        '{"version":1,"entries":[{"size":NaN}]}',
        '{"version":1,"entries":[{"size":1e999}]}',
        '{"version":1,"entries":[{"size":' + "9" * 5000 + "}]}",
        '{"version":1,"entries":[{"a":' + "[" * 100_000 + "]" * 100_000 + "}]}",
        '{1:1,"version":1,"entries":[]}',
        '{version:1,"entries":[]}',
        '{"version":1 "entries":[]}',
        '\ufeff{"version":1,"entries":[]}',
        b'{"version":1,"entries":[{"name":"\xff"}]}',
        b'{"version":1,"entries":[]}\xc3',
        '{"version":1,"entries":[{"name":"' + "a" * (2 * MAX_ELEMENT) + '"}]}',
    ],
    ids=lambda text: repr(text[:60]),
)
def test_what_is_no_table_is_refused(text: str | bytes) -> None:
    with pytest.raises(BadLayer, match="the table of contents cannot be read"):
        read(text, 1 << 16)


@given(st.binary(max_size=60), st.integers(1, 20))
def test_any_bytes_are_a_table_or_an_error_of_ours(content: bytes, size: int) -> None:
    try:
        read(content, size)
        read(b'{"version":1,"entries":[' + content, size)
    except BadLayer:
        pass


def test_a_big_table_is_read_in_little_memory() -> None:
    """40 MB of it; as objects it would be five times as much."""
    entry = json.dumps({"name": "a" * 100, "type": "reg", "chunkDigest": "sha256:" + "0" * 64}).encode() + b",\n"
    block = entry * 1000
    count = 40_000_000 // len(block)

    def table() -> Iterator[bytes]:
        yield b'{"version":1,"entries":['
        for _ in range(count):
            yield block
        yield b'{"name":"last"}]}'

    tracemalloc.start()
    try:
        found = sum(1 for _ in entries_of(table()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == count * 1000 + 1
    assert peak < 8 << 20
