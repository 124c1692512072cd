"""The verbs: what each takes, and what it prints. verbs.py, cache_verbs.py, status.py and checks.py do the work.

Used by main.py. What a verb needs is imported when it runs: `regfs --help` and `regfs status` load no HTTP client.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

from regfs.arguments import Parser, add_common, refuse_unknown, verb_parser
from regfs.cli.mounting import default_config
from regfs.cli.output import tell, warn
from regfs.config import Config, with_options

FAILED = 1
Verb = Callable[[Sequence[str], Mapping[str, str]], int]


def umount_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs umount [-l] MOUNTPOINT`."""
    del environment
    parser = verb_parser("umount", "Unmount a regfs, alive or dead.")
    parser.add_argument("-l", "--lazy", action="store_true", help="also where it is in use; who is inside may stay")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    given = _parse_verb(parser, arguments)
    if given is None:
        return 0
    from regfs import checks

    tell(checks.umount(given.mountpoint, lazily=given.lazy))
    return 0


def unpack_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs unpack [OPTIONS] IMAGE [DIR]`."""
    parser = verb_parser("unpack", "Write all layers of an image, merged, into DIR (./rootfs), which must be empty.")
    parser.add_argument("image", metavar="IMAGE", help="[registry/]repository[:tag][@digest], or its path in a mount")
    parser.add_argument("directory", metavar="DIR", nargs="?", default="rootfs")
    given = _parse_verb(parser, arguments, headings=("registry", "cache"))
    if given is None:
        return 0
    from pathlib import Path

    from regfs import verbs

    config = _verb_config(given, environment)
    done = verbs.unpack(given.image, Path(given.directory).absolute(), config=config, environment=environment, say=warn)
    for note in done.notes:
        warn(note)
    tell(done.result)
    return 0 if done.is_complete else FAILED


def prefetch_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs prefetch [OPTIONS] IMAGE`."""
    parser = verb_parser("prefetch", "Fetch all layers of an image into the cache, for mounts to come.")
    parser.add_argument("image", metavar="IMAGE", help="[registry/]repository[:tag][@digest], or its path in a mount")
    given = _parse_verb(parser, arguments, headings=("registry", "cache"))
    if given is None:
        return 0
    from regfs import verbs

    config = _verb_config(given, environment)
    tell(verbs.prefetch(given.image, config=config, environment=environment, say=warn).result)
    return 0


def cache_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs cache [OPTIONS] du|prune|verify`."""
    from regfs import cache_verbs

    parser = verb_parser("cache", "Look after the cache; mounts may use it meanwhile.")
    cache_verbs.add_arguments(parser)
    given = _parse_verb(parser, arguments, headings=("cache",))
    if given is None:
        return 0
    return cache_verbs.run(given, _verb_config(given, environment), say=tell, on_terminal=sys.stdout.isatty())


def status_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs status [--format text|json] [MOUNTPOINT…]`."""
    parser = verb_parser("status", "Show what mounts are doing: all, or those named. On a terminal with live bars.")
    parser.add_argument("mountpoints", metavar="MOUNTPOINT", nargs="*")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="json does not change its form")
    given = _parse_verb(parser, arguments)
    if given is None:
        return 0
    from regfs import status

    found = status.find(given.mountpoints)
    if given.format == "json":
        import json

        tell(json.dumps([each.as_json() for each in found], indent=1))
    else:
        for each in found:
            tell("\n".join(each.lines()))
        if len(found) == 1 and sys.stdout.isatty() and sys.stderr.isatty():
            status.watch(found[0], say=warn, environment=environment)
    return 0 if all(each.state == "alive" for each in found) else FAILED


VERBS: dict[str, Verb] = {
    "umount": umount_verb,
    "unpack": unpack_verb,
    "prefetch": prefetch_verb,
    "cache": cache_verb,
    "status": status_verb,
}


def _parse_verb(parser: Parser, arguments: Sequence[str], *, headings: Sequence[str] = ()) -> argparse.Namespace | None:
    """Return what was given to a verb, which also takes the options of *headings*; None where it was asked for help."""
    add_common(parser, headings)
    if {"-h", "--help"} & set(arguments):
        tell(parser.format_help().rstrip())
        return None
    given, unknown = parser.parse_known_intermixed_args(list(arguments))
    refuse_unknown(unknown, parser)
    return given


def _verb_config(given: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    """Return the Config of a verb, and let its log go to stderr: warnings, or everything with -d."""
    import logging

    from regfs.logs import start_logging

    start_logging(logging.DEBUG if given.debug else logging.ERROR, foreground=True, environment=environment)
    return with_options(default_config(environment), given.given)
