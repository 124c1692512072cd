"""/dev/fuse, the device over which a daemon and the kernel talk: opened, or refused with the remedy. Any thread."""

from __future__ import annotations

import os
import stat

from regfs.errors import MountFailure

DEVICE = "/dev/fuse"


def open_device() -> int:
    """Return a new descriptor of the device, not connected to any mount. Raises MountFailure with the remedy."""
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MountFailure(
            f"{DEVICE} is missing: modprobe fuse; in a container: --device {DEVICE} --cap-add SYS_ADMIN "
            "[--security-opt apparmor=unconfined]"
        ) from None
    except PermissionError:
        found = os.stat(DEVICE)
        raise MountFailure(
            f"{DEVICE} may not be opened (mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}): "
            f"chmod 666 {DEVICE}, or run as root"
        ) from None
    except OSError as error:
        raise MountFailure(f"{DEVICE}: {error.strerror}; is the fuse module loaded? modprobe fuse") from error
