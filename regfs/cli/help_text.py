"""What `regfs --help` and `regfs --version` print. Used by main.py and the verbs `help` and `version`. Any thread."""

from __future__ import annotations

import os
import sys

from regfs import __version__
from regfs.cli.arguments import mount_parser
from regfs.cli.verbs import VERBS


def mount_help() -> str:
    """Return all options of a mount, and a line for each verb."""
    shown = [(f"{name} {verb.usage}".rstrip(), verb.summary) for name, verb in VERBS.items() if verb.summary]
    width = max(len(call) for call, _ in shown)
    verbs = "\n".join(f"  regfs {call:<{width}}  {summary}" for call, summary in shown)
    return f"{mount_parser().format_help().rstrip()}\n\nverbs (each has its own --help):\n{verbs}"


def version() -> str:
    """Return the version of regfs, and of what it would run with."""
    import platform as machine
    from importlib.util import find_spec

    parts = {
        "Python": machine.python_version(),
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "driver": "kernel (/dev/fuse)" if sys.platform == "linux" else "fusepy",
        "libfuse 2": "found" if has_libfuse() else "not found; only --driver fusepy needs it",
        "isal": "found" if find_spec("isal") else "not found: gzip at a quarter of the speed",
    }
    return "\n".join([f"regfs {__version__}", *(f"{name}: {value}" for name, value in parts.items())])


def has_libfuse() -> bool:
    """Tell whether libfuse 2 can be loaded, which only the fusepy driver needs."""
    import ctypes

    from regfs.mount.fusepy import LIBRARY

    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True
