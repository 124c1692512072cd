"""Runs a program with the files of an image as its root: as root by chroot, as an ordinary user in a user namespace.

It has the machine's /dev, /proc and network, a /tmp of its own in memory, no other write, and the image's environment.
Used by `regfs record`. Linux; one thread calls, which waits for the program.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from regfs.errors import MountFailure
from regfs.model.run_config import RunConfig

_TOOLS = ("unshare", "mount", "sh")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("TERM", "LANG")
# $0: the root directory; $1: mount; $2: unshare; $3: the working directory; then the command.
_SCRIPT = """cd "$0" || exit 125
mount=$1 unshare=$2 directory=$3
shift 3
[ -d dev ] && "$mount" --rbind /dev dev 2>/dev/null
[ -d proc ] && "$mount" --rbind /proc proc 2>/dev/null
[ -d tmp ] && "$mount" -t tmpfs -o mode=1777 tmpfs tmp 2>/dev/null
exec "$unshare" --root=. --wd="$directory" -- "$@"
"""


def run_isolated(
    root: Path, command: Sequence[str], config: RunConfig, *, environment: Mapping[str, str], timeout_s: float | None
) -> int:
    """Run *command* in *root* and return its exit code, as shells have it: 128 and the signal that ended it.

    Its terminal and files are those of this process. After *timeout_s* it is ended, which is no failure. Raises
    MountFailure where this machine lacks what that needs.
    """
    search = environment.get("PATH", os.defpath)
    tools = {name: shutil.which(name, path=search) for name in _TOOLS}
    missing = [name for name, path in tools.items() if path is None]
    if missing:
        raise MountFailure(f"to run a program in an image needs {', '.join(missing)} (package util-linux)")
    unshare, mount, shell = (str(tools[name]) for name in _TOOLS)
    spaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    words = [
        unshare, *spaces, shell, "-c", _SCRIPT, str(root), mount, unshare, config.working_dir or "/", *command,
    ]  # fmt: skip
    # A group of its own, so that all of it is ended; the terminal's signals reach it through this process.
    process = subprocess.Popen(words, env=_environment(config, environment), start_new_session=True)
    try:
        return _code(process.wait(timeout_s))
    except subprocess.TimeoutExpired:
        return 0
    finally:
        _end(process)


def _environment(config: RunConfig, environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: environment[name] for name in _KEPT if name in environment}
    of_image = dict(text.partition("=")[::2] for text in config.env if "=" in text)
    return {"PATH": _DEFAULT_PATH, "HOME": "/root", **kept, **of_image}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and all that it started and that stayed in its session's group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _code(returned: int) -> int:
    return 128 - returned if returned < 0 else returned
