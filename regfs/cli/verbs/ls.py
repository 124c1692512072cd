"""`regfs ls [OPTIONS] IMAGE[:/PATH] …`."""

from __future__ import annotations

import argparse
import stat
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from regfs.cli.arguments import IMAGE_PATH_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import say_nothing, tell, warn
from regfs.model.attributes import TYPES

if TYPE_CHECKING:
    from regfs.verbs.ls import Entry, Listed


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("ls", "List a directory of an image; without PATH, its root (of an artifact, its files).")
    made.add_argument("paths", metavar="IMAGE[:/PATH]", nargs="+", help=IMAGE_PATH_HELP)
    made.add_argument("-l", dest="long", action="store_true", help="modes, owners by number, sizes, times (UTC)")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the entries; with several arguments, a heading before each directory."""
    from regfs.verbs.ls import ls

    say = say_nothing if given.quiet else warn
    for listed in ls(given.paths, config=verb_config(given, environment), environment=environment, say=say):
        if given.format == "json":
            tell_json(_as_json(listed))
            continue
        if listed.is_directory and len(given.paths) > 1:
            tell(f"{listed.typed}:")
        lines = [_long(entry) if given.long else entry.name for entry in listed.entries]
        if lines:
            tell("\n".join(lines))
    return 0


def _as_json(listed: Listed) -> dict[str, object]:
    entries = [entry_as_json(each) for each in listed.entries]
    return {"path": listed.typed, "is_directory": listed.is_directory, "entries": entries}


def entry_as_json(entry: Entry) -> dict[str, object]:
    """Return one entry: the target is that of a symbolic link; a mode is a number, a time seconds since 1970."""
    return {
        "path": entry.path,
        "type": TYPES.get(stat.S_IFMT(entry.mode), "unknown"),
        "mode": stat.S_IMODE(entry.mode),
        "nlink": entry.nlink,
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": entry.mtime_ns / 1_000_000_000,
        "target": entry.target,
    }


def _long(entry: Entry) -> str:
    date = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.mtime_ns // 1_000_000_000))
    target = f" -> {entry.target}" if entry.target is not None else ""
    return (
        f"{stat.filemode(entry.mode)} {entry.nlink:3} {entry.uid:5} {entry.gid:5} {entry.size:10} {date} "
        f"{entry.name}{target}"
    )
