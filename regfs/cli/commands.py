"""The verbs: what each takes, and what it prints. The modules of verbs/ do the work.

Used by main.py. What a verb needs is imported when it runs: `regfs --help` and `regfs status` load no HTTP client.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from regfs import __version__
from regfs.cli.arguments import add_format, mount_parser, verb_parser
from regfs.cli.exit_codes import FAILED, exit_code
from regfs.cli.image_commands import path_verb, prefetch_verb, unpack_verb
from regfs.cli.output import tell, warn
from regfs.cli.verb_arguments import parse_verb
from regfs.config import not_empty, suggestion
from regfs.errors import InvalidOption, MountFailure


class Verb(NamedTuple):
    """A verb: what `regfs --help` says of it, and how it is run; *run* returns the exit code and raises RegfsError."""

    usage: str
    summary: str
    run: Callable[[Sequence[str], Mapping[str, str]], int]


def umount_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs umount [-l|-f] MOUNTPOINT`."""
    del environment
    parser = verb_parser("umount", "Unmount a regfs, alive or dead.")
    parser.add_argument(
        "-l", "-z", "--lazy", action="store_true", help="also where it is in use: processes inside keep what they see"
    )
    parser.add_argument(
        "-f", "--force", action="store_true", help="also where it hangs: processes inside get errors from now on"
    )
    parser.add_argument("-u", dest="unmount", action="store_true", help=argparse.SUPPRESS)  # as fusermount has it
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", type=not_empty)
    given = parse_verb(parser, arguments)
    if given is None:
        return 0
    from regfs.verbs.umount import umount

    tell(umount(given.mountpoint, lazily=given.lazy, by_force=given.force))
    return 0


def cache_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs cache [OPTIONS] du|ls|rm|prune|verify`."""
    from regfs.cli.cache_command import run

    return run(arguments, environment)


def status_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs status [--format text|json] [MOUNTPOINT…]`."""
    parser = verb_parser(
        "status",
        "Show what mounts are doing: all, or those named. On a terminal with live bars. Ends with 1 where a mount is "
        "dead or does not answer within five seconds; mounts of other users are no failure.",
    )
    parser.add_argument("mountpoints", metavar="MOUNTPOINT", nargs="*", type=not_empty)
    add_format(parser)
    given = parse_verb(parser, arguments)
    if given is None:
        return 0
    from regfs.verbs import status

    found = status.find(given.mountpoints)
    if given.format == "json":
        import json

        tell(json.dumps([each.as_json() for each in found], indent=1))
    else:
        for each in found:
            tell("\n".join(each.lines()))
        if not found:
            warn("no regfs is mounted")
        if len(found) == 1 and sys.stdout.isatty() and sys.stderr.isatty():
            status.watch(found[0], say=warn, environment=environment)
    return 0 if all(each.is_well for each in found) else FAILED


def refresh_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs refresh [MOUNTPOINT…]`."""
    del environment
    parser = verb_parser(
        "refresh",
        "Let mounts ask for tags and listings again, whatever --tag-ttl says: all of your own, or those named. Returns "
        "when they have begun to. Ends with 4 where a mount is another user's, with 1 or 5 where it does not answer.",
    )
    parser.add_argument("mountpoints", metavar="MOUNTPOINT", nargs="*", type=not_empty)
    given = parse_verb(parser, arguments)
    if given is None:
        return 0
    from regfs.mount.mountpoint import on_one_line
    from regfs.verbs.refresh import refresh

    refreshed = refresh(given.mountpoints)
    if not refreshed:
        raise MountFailure("no regfs of yours is mounted")
    for each in refreshed:
        if each.failure is None:
            tell(f"{on_one_line(each.mountpoint)}: tags and listings will be asked for again")
        else:
            warn(str(each.failure))
    return max(0 if each.failure is None else exit_code(each.failure) for each in refreshed)


def mount_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs mount`: the word is kept for a mount of one image."""
    del arguments, environment
    raise InvalidOption(
        "to mount needs no verb: regfs MOUNTPOINT shows all registries, regfs HOST MOUNTPOINT makes HOST the default "
        "one; an image is a directory in it"
    )


def help_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs help [VERB [WORD]]`: `regfs help cache du` is the help of `cache`, which has that of its words."""
    parser = verb_parser("help", "Show all options and verbs, or how one verb is used.")
    parser.add_argument("verb", metavar="VERB", nargs="?")
    parser.add_argument("word", metavar="WORD", nargs="?")
    given = parse_verb(parser, arguments)
    if given is None:
        return 0
    if given.verb is None:
        tell(mount_help())
        return 0
    verb = verb_named(given.verb)
    if verb is None:
        raise InvalidOption(f"{given.verb} is no verb of regfs{suggestion(given.verb, VERBS)}")
    return verb.run(["--help"], environment)


def version_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs version`, the same as `regfs --version`."""
    del environment
    parser = verb_parser("version", "Show the versions of regfs and of what it runs with.")
    if parse_verb(parser, arguments) is not None:
        tell(version())
    return 0


VERBS: dict[str, Verb] = {
    "umount": Verb("[-l|-f] MOUNTPOINT", "unmount, alive or dead", umount_verb),
    "status": Verb("[MOUNTPOINT…]", "what the mounts are doing", status_verb),
    "refresh": Verb("[MOUNTPOINT…]", "let mounts ask for tags and listings again", refresh_verb),
    "prefetch": Verb("IMAGE…", "fetch images into the cache", prefetch_verb),
    "path": Verb("IMAGE", "where in a mount an image stays, whatever becomes of its tag", path_verb),
    "unpack": Verb("IMAGE [DIR]", "write the files of an image into a directory", unpack_verb),
    "cache": Verb("du|ls|rm|prune|verify", "look after the cache", cache_verb),
    "mount": Verb("", "", mount_verb),
    "help": Verb("[VERB]", "show this, or how a verb is used", help_verb),
    "version": Verb("", "show versions", version_verb),
}
ALIASES = {"unmount": "umount"}


def verb_named(word: str) -> Verb | None:
    """Return the verb *word*, or that which it is another name of; None where it is no verb."""
    return VERBS.get(ALIASES.get(word, word))


def mount_help() -> str:
    """Return what `regfs --help` prints."""
    shown = [(f"{name} {verb.usage}".rstrip(), verb.summary) for name, verb in VERBS.items() if verb.summary]
    width = max(len(call) for call, _ in shown)
    verbs = "\n".join(f"  regfs {call:<{width}}  {summary}" for call, summary in shown)
    return f"{mount_parser().format_help().rstrip()}\n\nverbs (each has its own --help):\n{verbs}"


def version() -> str:
    """Return what `--version` prints: regfs, and what it would run with."""
    import platform as machine
    from importlib.util import find_spec

    parts = {
        "Python": machine.python_version(),
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "driver": "kernel (/dev/fuse)" if sys.platform == "linux" else "fusepy",
        "libfuse 2": "found" if _has_libfuse() else "not found; only --driver fusepy needs it",
        "isal": "found" if find_spec("isal") else "not found: gzip at a quarter of the speed",
    }
    return "\n".join([f"regfs {__version__}", *(f"{name}: {value}" for name, value in parts.items())])


def _has_libfuse() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libfuse.so.2")
    except OSError:
        return False
    return True
