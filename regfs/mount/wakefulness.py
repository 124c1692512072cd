"""Keeping idle cores awake while requests come thick and fast. Used by busy_poll.py. One thread at a time.

A program that walks a tree sleeps while it waits for each answer, and its core with it. To wake a core from a deep
sleep takes longer than to answer: on a virtual machine, where it is halted, up to 300 us (a first `find` over 40,269
entries took 3.3 to 7.7 s, with cores kept awake 0.8 to 1.3 s; the second 0.5 to 1.8 s and 0.2 to 0.3 s). While the
device below is open, the kernel lets no core sleep deeper than the number that was written there says. It costs power,
so that it is held for bursts alone. Root may open it; for others nothing changes.

Source: the kernel's Documentation/admin-guide/pm/cpuidle.rst, "Power Management Quality of Service for CPUs".
"""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path

log = logging.getLogger(__name__)

_DEVICE = Path("/dev/cpu_dma_latency")
_DRIVER = Path("/sys/devices/system/cpu/cpuidle/current_driver")
_LATENCY_US = struct.Struct("=i")
# Shallow sleeps (C1) are left to real cores. A halted virtual core claims to be up in 1 us, so that it must not halt.
_SHALLOW_US = 5
_NONE_US = 0
_VIRTUAL = "haltpoll"


class Wakefulness:
    """Asks for short wake-ups, from hold() to release()."""

    def __init__(self, *, device: Path = _DEVICE, driver: Path = _DRIVER) -> None:
        self._device = device
        self._driver = driver
        self._fd = -1
        self._is_possible = True

    @property
    def is_held(self) -> bool:
        """Whether cores are kept awake now."""
        return self._fd >= 0

    def hold(self) -> None:
        """Keep cores awake from now on, where that is possible."""
        if self._fd >= 0 or not self._is_possible:
            return
        try:
            latency_us = _NONE_US if self._driver.read_text().strip() == _VIRTUAL else _SHALLOW_US
            self._fd = os.open(self._device, os.O_WRONLY | os.O_CLOEXEC)
            os.write(self._fd, _LATENCY_US.pack(latency_us))
        except OSError as error:
            log.debug("cores sleep as they like: %s: %s", self._device, error.strerror)
            self.release()
            self._is_possible = False

    def release(self) -> None:
        """Let cores sleep again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
