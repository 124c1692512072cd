"""Attributes, packed as the kernel wants them."""

from __future__ import annotations

import os
import stat

from hypothesis import given
from hypothesis import strategies as st

from regfs.model.attributes import Attributes, device_number, is_directory, mode_of, with_nlink

U32 = st.integers(0, 2**32 - 1)


@given(
    st.builds(
        Attributes,
        mode=U32,
        size=st.integers(0, 2**63 - 1),
        nlink=U32,
        uid=U32,
        gid=U32,
        rdev=U32,
        mtime_ns=st.integers(-(2**60), 2**62),
    )
)
def test_what_is_packed_is_unpacked(attributes: Attributes) -> None:
    packed = attributes.pack()
    assert len(packed) == 80
    assert Attributes.unpack(packed) == attributes


def test_a_time_before_1970_has_its_nanoseconds_counted_forward() -> None:
    assert Attributes.unpack(Attributes(0, mtime_ns=-1).pack()).mtime_ns == -1


def test_the_link_count_is_changed_alone() -> None:
    attributes = Attributes(stat.S_IFREG | 0o644, size=5, uid=1, gid=2, mtime_ns=3)
    assert Attributes.unpack(with_nlink(attributes.pack(), 7)) == attributes._replace(nlink=7)


def test_the_mode_is_read_where_it_is() -> None:
    packed = Attributes(stat.S_IFDIR | 0o1777, uid=1000).pack()
    assert mode_of(packed) == stat.S_IFDIR | 0o1777
    assert is_directory(packed)


@given(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF))
def test_device_numbers_are_those_of_linux(major: int, minor: int) -> None:
    assert device_number(major, minor) == os.makedev(major, minor) & 0xFFFFFFFF
