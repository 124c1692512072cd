"""What ELF files and ld.so.cache say of libraries; what is hostile in them costs nothing but an error."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from regfs.errors import BadContent
from regfs.model.elf import Elf, parse_elf
from regfs.model.ld_so_cache import parse_ld_so_cache
from tests.support.elf import elf, library_cache


def parsed(content: bytes) -> Elf:
    return parse_elf(lambda offset, size: content[offset : offset + size])


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_interpreter_and_libraries_are_read_in_their_order(bits: int, order: str) -> None:
    made = elf(
        interpreter=b"/lib/ld.so", needed=[b"libb.so", b"liba.so"], rpath=b"/r", runpath=b"$ORIGIN", bits=bits,
        order=order,
    )  # fmt: skip
    found = parsed(made)
    assert (found.interpreter, found.needed) == (b"/lib/ld.so", (b"libb.so", b"liba.so"))
    assert (found.rpath, found.runpath, found.is_64_bits) == (b"/r", b"$ORIGIN", bits == 64)
    assert found.segments[0].size == len(made)


def test_this_python_names_its_loader() -> None:
    content = Path(sys.executable).resolve().read_bytes()
    found = parsed(content)
    assert Path(found.interpreter.decode()).exists()
    assert any(name.startswith(b"libc.") for name in found.needed)


def test_few_and_small_parts_are_read() -> None:
    content, reads = elf(interpreter=b"/lib/ld.so", needed=[b"libc.so"], padding=1 << 20), list[int]()

    def read(offset: int, size: int) -> bytes:
        reads.append(size)
        return content[offset : offset + size]

    assert parse_elf(read).needed == (b"libc.so",)
    assert len(reads) <= 6
    assert sum(reads) < 10_000


@pytest.mark.parametrize("length", [0, 4, 20, 60, 100, 200])
def test_a_file_that_ends_early_is_no_program(length: int) -> None:
    with pytest.raises(BadContent):
        parsed(elf(interpreter=b"/lib/ld.so", needed=[b"libc.so"])[:length])


def test_damaged_files_raise_nothing_else_and_end() -> None:
    rng = random.Random(1)
    right = elf(interpreter=b"/lib/ld.so", needed=[b"liba.so", b"libb.so"], runpath=b"/x:/y")
    for _ in range(3000):
        content = bytearray(right)
        for _ in range(rng.randrange(1, 6)):
            content[rng.randrange(len(content))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        try:
            found = parsed(bytes(content))
        except BadContent:
            continue
        assert len(found.needed) <= 256


@pytest.mark.parametrize("after_old", [False, True])
def test_a_library_cache_names_files(after_old: bool) -> None:
    content = library_cache({b"liba.so": b"/lib/liba.so", b"libb.so.1": b"/opt/libb.so.1"}, after_old=after_old)
    assert parse_ld_so_cache(content) == {b"liba.so": (b"/lib/liba.so",), b"libb.so.1": (b"/opt/libb.so.1",)}


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"ld.so-1.7.0\0\xff\xff\xff\xff", library_cache({})[:47]])
def test_what_is_no_library_cache_names_nothing(content: bytes) -> None:
    assert parse_ld_so_cache(content) == {}


def test_a_library_cache_that_points_anywhere_raises_nothing() -> None:
    rng = random.Random(2)
    right = library_cache({b"liba.so": b"/lib/liba.so"})
    for _ in range(1000):
        content = bytearray(right)
        content[rng.randrange(20, len(content))] = rng.randrange(256)
        parse_ld_so_cache(bytes(content))
