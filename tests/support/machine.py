"""What this machine offers to the tests, for the header of a test run: what is missing is skipped, and said there."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

from tests.support.registry import is_installed

_PASSTHROUGH_SINCE = (6, 9)


def can_and_cannot() -> tuple[list[str], list[str]]:
    """Return what can be tested on this machine, and what cannot."""
    found = dict(_abilities())
    return [name for name, is_there in found.items() if is_there], [name for name, there in found.items() if not there]


def _abilities() -> Iterator[tuple[str, bool]]:
    checks: dict[str, Callable[[], bool]] = {
        "mounts (/dev/fuse)": lambda: os.path.exists("/dev/fuse"),
        "mounts of ordinary users (fusermount3)": lambda: shutil.which("fusermount3") is not None,
        "owners, devices and other users (root)": lambda: os.geteuid() == 0,
        "passthrough (root, Linux 6.9)": lambda: os.geteuid() == 0 and _kernel() >= _PASSTHROUGH_SINCE,
        "user namespaces (unshare -r)": _has_user_namespaces,
        "a real registry (docker-registry)": is_installed,
        "comparison with umoci": lambda: shutil.which("umoci") is not None,
        "the fusepy driver (libfuse 2)": _has_libfuse,
        "EROFS images by fsck.erofs (erofs-utils 1.7)": knows_small_blocks,
    }
    for name, check in checks.items():
        yield name, check()


def knows_small_blocks() -> bool:
    """Tell whether there is an fsck.erofs that reads blocks smaller than a page: from erofs-utils 1.7 on."""
    try:
        said = subprocess.run(["fsck.erofs", "-V"], check=False, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.search(r"(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 7)


def _kernel() -> tuple[int, ...]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def _has_user_namespaces() -> bool:
    try:
        return subprocess.run(["unshare", "-r", "true"], check=False, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _has_libfuse() -> bool:
    from regfs.cli.versions import has_libfuse

    return has_libfuse()
