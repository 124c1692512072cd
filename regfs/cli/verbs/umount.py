"""`regfs umount [-l|-f] MOUNTPOINT`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.app.config import not_empty
from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import tell


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("umount", "Unmount a regfs, alive or dead.")
    made.add_argument(
        "-l", "-z", "--lazy", action="store_true", help="also where it is in use: processes inside keep what they see"
    )
    made.add_argument(
        "-f", "--force", action="store_true", help="also where it hangs: processes inside get errors from now on"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="say nothing, and do nothing where nothing is mounted")
    made.add_argument("-u", dest="unmount", action="store_true", help=argparse.SUPPRESS)  # as fusermount has it
    made.add_argument("mountpoint", metavar="MOUNTPOINT", type=not_empty)
    add_format(made)
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Unmount, and say what was unmounted."""
    del environment
    from regfs.verbs.umount import is_mounted, umount

    if given.quiet and not is_mounted(given.mountpoint):
        if given.format == "json":
            tell_json({"mountpoint": given.mountpoint, "source": None, "note": None})
        return 0
    gone = umount(given.mountpoint, lazily=given.lazy, by_force=given.force)
    if given.format == "json":
        tell_json({"mountpoint": gone.mountpoint, "source": gone.source, "note": gone.note or None})
    elif not given.quiet:
        tell(gone.text())
    return 0
