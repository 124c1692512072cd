"""/dev/fuse that cannot be opened: the message has the reason and the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from regfs.errors import MountFailure
from regfs.mount import device as devices
from tests.support.mounted import as_user, environment_for


def test_a_missing_device_is_told_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "DEVICE", str(tmp_path / "fuse"))
    with pytest.raises(MountFailure, match="is missing: modprobe fuse; in a container: --device"):
        devices.open_device()


def test_a_device_that_is_closed_to_the_user_is_told_with_its_mode(
    ordinary_user: int | None, tmp_path: Path, needs_fuse: None
) -> None:
    if ordinary_user is None:
        pytest.skip("needs root, to make a device that is closed to others")
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        device = Path(made, "fuse")
        device.touch(mode=0o600)
        program = f"from regfs.mount import device; device.DEVICE = {str(device)!r}; device.open_device()"
        done = subprocess.run(
            [*as_user(ordinary_user), sys.executable, "-c", program],
            env=environment_for(tmp_path), capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert f"{device} may not be opened (mode 0600, owner 0): chmod 666 {device}, or run as root" in done.stderr
