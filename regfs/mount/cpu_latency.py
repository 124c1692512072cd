"""--low-latency: keeping idle cores awake during bursts of requests. Used by busy_poll.py. One thread at a time.

A program that walks a tree sleeps while it waits for each answer, and its core with it. To wake a core from a deep
sleep takes longer than to answer: on a virtual machine of two cores, where an idle core is halted, up to 300 us. The
first `find` over 40,269 entries took 3.3 to 7.7 s there, with the cores kept awake 0.8 to 1.3 s; the second one 0.5 to
1.8 s and 0.2 to 0.3 s. On cores that other programs keep busy there is no gain.

While /dev/cpu_dma_latency is open, the kernel lets no core of the machine sleep so deeply that it takes longer to wake
than the number written there. That costs power, and time of a virtual machine's neighbours, so the device is held open
for bursts only, and only if the user asks for it. Only root may open it.

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
# Real cores may still use their shallowest sleep (C1). A halted virtual core claims to wake in 1 us and does not.
_SHALLOW_US = 5
_NONE_US = 0
_VIRTUAL = "haltpoll"


class CpuLatencyLimit:
    """Limits how long a core of the machine may take to wake, from hold() to release()."""

    def __init__(self, *, device: Path = _DEVICE, driver: Path = _DRIVER) -> None:
        self._device = device
        self._driver = driver
        self._fd = -1
        self._is_possible = True

    @property
    def is_held(self) -> bool:
        """Whether the limit holds now."""
        return self._fd >= 0

    def hold(self) -> None:
        """Limit the latency from now on; where that is not possible, warn once and change nothing."""
        if self._fd >= 0 or not self._is_possible:
            return
        try:
            latency_us = _NONE_US if self._driver.read_text().strip() == _VIRTUAL else _SHALLOW_US
            self._fd = os.open(self._device, os.O_WRONLY | os.O_CLOEXEC)
            os.write(self._fd, _LATENCY_US.pack(latency_us))
        except OSError as error:
            log.warning("--low-latency has no effect: %s: %s", error.filename or self._device, error.strerror)
            self.release()
            self._is_possible = False

    def release(self) -> None:
        """Remove the limit."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
