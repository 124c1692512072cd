"""--low-latency, by real mounts: the device that keeps cores awake is held during bursts, and only if asked for."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.support.mounted import Mounted

DEVICE = "/dev/cpu_dma_latency"
BURSTS = 1000
NUMBERS = count()


def burst(mounted: Mounted) -> None:
    """Let the daemon answer a hundred requests: the kernel remembers no name that it asks for the first time."""
    for _ in range(100):
        with suppress(FileNotFoundError):
            os.stat(mounted.path / f".regfs/none-{next(NUMBERS)}")


def is_held(pid: int) -> bool:
    """Return whether the process has the device open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(link) == DEVICE:
                return True
    return False


@pytest.mark.skipif(not os.access(DEVICE, os.W_OK), reason=f"{DEVICE} cannot be opened")
@pytest.mark.parametrize("driver", ["kernel", "fusepy"])
def test_low_latency_keeps_cores_awake_during_bursts(mount_regfs: MountRegfs, driver: str) -> None:
    mounted = mount_regfs("--offline", "--driver", driver, "--low-latency")
    pid = mounted.daemon
    for _ in range(BURSTS):  # the machine may stand still in one of them
        burst(mounted)
        if is_held(pid):
            break
    else:
        pytest.fail("never held")


@pytest.mark.parametrize("driver", ["kernel", "fusepy"])
def test_without_the_option_cores_sleep_as_they_like(mount_regfs: MountRegfs, driver: str) -> None:
    mounted = mount_regfs("--offline", "--driver", driver)
    pid = mounted.daemon
    for _ in range(5):
        burst(mounted)
        assert not is_held(pid)
