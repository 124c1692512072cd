"""What the kernel is told unasked, read from the other end of a pipe."""

from __future__ import annotations

import os

import pytest

from regfs.mount.kernel import abi
from regfs.mount.kernel import notifications as kernel_notices
from regfs.mount.kernel.notifications import Notifications


def test_a_name_that_was_answered_while_a_refresh_was_told_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_notices, "_AGAIN_S", 0.01)
    known = iter([[(1, b"one")], [(1, b"two")]])
    reader, writer = os.pipe()
    notices = Notifications()
    notices.connect(writer)
    try:
        notices.expire_entries(lambda: next(known))
        assert os.read(reader, 1 << 16) == abi.pack_expire_entry(1, b"one")
        assert os.read(reader, 1 << 16) == abi.pack_expire_entry(1, b"two")
    finally:
        notices.close()
        os.close(reader)
        os.close(writer)
