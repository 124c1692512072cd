"""The bytes of the kernel's protocol."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import pytest

from regfs.mount.kernel import abi

HEADER = Path("/usr/include/linux/fuse.h")
ATTRIBUTES = bytes(range(88))


def test_the_structs_have_the_sizes_of_the_kernels_header() -> None:
    sizes = {
        abi.IN_HEADER: 40, abi.OUT_HEADER: 16, abi.INIT_OUT: 64, abi.ENTRY_HEAD: 40, abi.ATTRIBUTES_HEAD: 16,
        abi.OPEN_OUT: 16, abi.STATFS_OUT: 80, abi.DIRENT: 24, abi.PLUS_HEAD: 152, abi.STORE_OUT: 24,
        abi.INVAL_INODE_OUT: 24, abi.INVAL_ENTRY_OUT: 16, abi.BACKING_MAP: 16,
    }  # fmt: skip
    assert {size for layout, size in sizes.items() if layout.size != size} == set()


def test_opcodes_are_those_of_the_header_on_this_machine() -> None:
    if not HEADER.exists():
        pytest.skip("linux-libc-dev is not installed")
    theirs = {name: int(number) for name, number in re.findall(r"^\tFUSE_(\w+)\s*= (\d+),", HEADER.read_text(), re.M)}
    ours = {opcode.name: opcode.value for opcode in abi.Opcode}
    assert {name: number for name, number in ours.items() if name in theirs and theirs[name] != number} == {}
    assert len(set(theirs) & set(ours)) > 40


def test_an_error_is_negative_and_has_no_body() -> None:
    assert abi.pack_error(7, 2) == bytes.fromhex("10000000 feffffff 0700000000000000")


def test_an_entry_has_its_own_time() -> None:
    entry = abi.pack_entry(5, ATTRIBUTES, 1.5)
    assert struct.unpack("<QQQQII", entry[:40]) == (5, 0, 1, 1, 500_000_000, 500_000_000)
    assert entry[40:] == ATTRIBUTES


def test_for_ever_is_the_longest_time() -> None:
    entry = abi.pack_entry(5, ATTRIBUTES, math.inf)
    assert struct.unpack("<QQQQII", entry[:40]) == (5, 0, 1 << 62, 1 << 62, 0, 0)
    assert abi.pack_attributes(ATTRIBUTES, math.inf) == struct.pack("<QII", 1 << 62, 0, 0) + ATTRIBUTES


def test_a_missing_name_is_an_entry_of_node_0() -> None:
    assert abi.pack_entry(0, b"", math.inf)[:8] == bytes(8)
    assert len(abi.pack_entry(0, b"", math.inf)) == 128


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_no_time_is_no_time(seconds: float) -> None:
    assert abi.valid_for(seconds) == (0, 0)


def test_the_offers_flags_are_64_bits_where_it_says_so() -> None:
    body = struct.pack("<IIIII", 7, 45, 131072, abi.INIT_EXT | 1, 1 << 5) + bytes(44)
    assert abi.parse_init(body) == (7, 45, 131072, abi.PASSTHROUGH | abi.INIT_EXT | 1)
    assert abi.parse_init(struct.pack("<IIII", 7, 31, 131072, 1)) == (7, 31, 131072, 1)


def test_the_answer_to_init_has_both_halves_of_the_flags() -> None:
    flags = abi.PASSTHROUGH | abi.INIT_EXT
    body = abi.pack_init(45, flags, max_readahead=131072, max_background=64, max_pages=256, stack_depth=1)
    assert struct.unpack("<IIIIHHIIHHIIH22x", body) == (
        7, 45, 131072, abi.INIT_EXT, 64, 48, 4096, 1, 256, 0, 1 << 5, 1, 0,
    )  # fmt: skip


def test_notices_have_no_unique_and_their_code() -> None:
    assert abi.pack_expire_entry(9, b"ab") == (struct.pack("<IiQ", 35, 3, 0) + struct.pack("<QII", 9, 2, 1) + b"ab\0")
    assert abi.pack_inval_inode(9, -1, 0) == struct.pack("<IiQ", 40, 2, 0) + struct.pack("<Qqq", 9, -1, 0)
    assert abi.pack_store_head(9, 0, 5) == struct.pack("<IiQ", 45, 4, 0) + struct.pack("<QQII", 9, 0, 5, 0)
