"""The user of this process: where the home and the programs are, and whether uid 0 is root of the machine.

HOME cannot be trusted: mount(8) with `user` drops it, mount.fuse3 sets it to /root, systemd leaves it out, and
`setpriv` and `sudo --preserve-env` keep that of another user. In a user namespace (`unshare -r`, `podman unshare`) an
ordinary user is uid 0. Used by the command line, and by registry/ for the user's files of configuration and
credentials. Asks the file system and the password database. Any thread.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path

FALLBACK_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, where the environment has no PATH."""
_UID_MAP = "/proc/self/uid_map"
_ALL_IDS = (0, 0, 0xFFFFFFFF)


def home_directory(environment: Mapping[str, str], uid: int | None = None) -> str:
    """Return the absolute path of the user's home, empty where there is none.

    HOME counts unless it is unset, empty or relative, or a directory that the user neither can enter nor owns. The
    home in the password database comes next: that of *uid* (default: the effective one), then that of the user outside
    of the user namespace.
    """
    candidates = (environment.get("HOME", ""), *_homes_of(os.geteuid() if uid is None else uid))
    return next((home for home in candidates if home.startswith("/") and _is_open(home)), "")


def configuration_directory(environment: Mapping[str, str], uid: int | None = None) -> Path | None:
    """Return $XDG_CONFIG_HOME or ~/.config, None where there is no home.

    An empty or relative variable counts as unset. Source: XDG Base Directory Specification.
    """
    configured = environment.get("XDG_CONFIG_HOME", "")
    if configured.startswith("/"):
        return Path(configured)
    home = home_directory(environment, uid)
    return Path(home, ".config") if home else None


def is_root_of_machine() -> bool:
    """Tell whether this is root, and not uid 0 of a user namespace. Source: user_namespaces(7)."""
    return os.geteuid() == 0 and _uid_map() in ([], [_ALL_IDS])


def may_write(directory: Path) -> bool:
    """Tell whether files can be made in *directory*, or the directory itself if it does not exist yet."""
    for place in (directory, *directory.parents):
        if os.path.lexists(place):
            return os.access(place, os.W_OK | os.X_OK, effective_ids=True)
    return False


def _is_open(home: str) -> bool:
    """Tell whether *home* may be this user's. One that does not exist yet may be: it is made when it is needed."""
    try:
        owner = os.stat(home).st_uid
    except OSError as error:
        return not isinstance(error, PermissionError)
    return owner == os.geteuid() or os.access(home, os.W_OK | os.X_OK, effective_ids=True)


def _homes_of(uid: int) -> Iterator[str]:
    for each in dict.fromkeys((uid, _outside(uid))):
        try:
            yield pwd.getpwuid(each).pw_dir
        except KeyError:
            continue  # containers run as users without a name


def _outside(uid: int) -> int:
    """Return the user id outside of the user namespace for *uid*; the same where there is no user namespace."""
    for first, outside, count in _uid_map():
        if first <= uid < first + count:
            return outside + uid - first
    return uid


def _uid_map() -> list[tuple[int, ...]]:
    """Return the lines of uid_map: first uid inside, first uid outside, how many. Empty where there is no /proc."""
    try:
        text = Path(_UID_MAP).read_text(encoding="ascii")
    except OSError:
        return []
    return [tuple(map(int, line.split())) for line in text.splitlines()]
