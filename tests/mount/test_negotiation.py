"""INIT: version and flags are those that kernel and session both know."""

from __future__ import annotations

import errno
import struct

import pytest

from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from tests.mount.asking_kernel import TIMEOUT_S, Kernel


def test_the_session_takes_what_the_kernel_offers_and_no_more(new_kernel: Kernel) -> None:
    major, minor, _, flags, *_, flags2, _, _ = new_kernel.init(minor=36, flags=abi.ASYNC_READ | abi.MAX_PAGES)
    assert (major, minor, flags, flags2) == (7, 36, abi.ASYNC_READ | abi.MAX_PAGES, 0)
    assert new_kernel.ready.wait(TIMEOUT_S)


@pytest.mark.parametrize(("checks_permissions", "offered"), [(True, True), (True, False), (False, True)])
def test_mapped_owners_are_asked_for_where_the_kernel_checks_permissions_and_offers_them(
    checks_permissions: bool, offered: bool
) -> None:
    kernel = Kernel(checks_permissions=checks_permissions)
    try:
        flags = (1 << 43) - 1
        *_, flags2, _, _ = kernel.init(flags=flags if offered else flags & ~abi.ALLOW_IDMAP)
        # Without default_permissions the kernel would refuse the whole mount.
        assert bool(flags2 & abi.ALLOW_IDMAP >> 32) == (checks_permissions and offered)
    finally:
        kernel.close()


@pytest.mark.parametrize("passthrough", [True, False])
def test_without_passthrough_no_level_of_stacking_is_taken(passthrough: bool) -> None:
    kernel = Kernel(passthrough=passthrough)
    try:
        *_, flags2, stack_depth, _ = kernel.init()
        assert (bool(flags2 & abi.PASSTHROUGH >> 32), stack_depth) == (passthrough, int(passthrough))
    finally:
        kernel.close()


def test_a_later_kernel_hears_the_version_that_is_known(new_kernel: Kernel) -> None:
    assert new_kernel.init(minor=99)[:2] == (7, abi.MINOR)


def test_a_kernel_of_another_major_version_asks_again(new_kernel: Kernel) -> None:
    body = new_kernel.ask(Opcode.INIT, 0, struct.pack("<IIII", 8, 0, 0, 0))
    assert struct.unpack_from("<II", body) == (7, abi.MINOR)
    assert not new_kernel.ready.is_set()
    assert new_kernel.init()[:2] == (7, 45)
    assert new_kernel.ready.wait(TIMEOUT_S)


def test_a_kernel_that_is_too_old_is_a_mount_failure(new_kernel: Kernel) -> None:
    body = struct.pack("<IIII", 7, 30, 131072, 0)
    assert new_kernel.error(Opcode.INIT, 0, body) == errno.EPROTO
    new_kernel.thread.join(TIMEOUT_S)
    assert "7.30" in str(new_kernel.mount_failure)
