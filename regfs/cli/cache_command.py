"""`regfs cache du|ls|rm|prune|verify`: its arguments. verbs/cache.py does the work, and is given the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from regfs.cli.arguments import add_format, verb_parser
from regfs.cli.output import tell, warn
from regfs.cli.verb_arguments import parse_verb, verb_config
from regfs.verbs import cache

_HELP = (
    "du: how much the cache holds; ls: which images; rm IMAGE…: evict what those images alone need; prune: evict what "
    "was used longest ago; verify: look for damaged files"
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let *parser* read the words of `regfs cache`."""
    parser.add_argument("what", choices=cache.WORDS, metavar="|".join(cache.WORDS), help=_HELP)
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help="rm: by name, digest (12 digits do), or path in a mount"
    )
    add_format(parser)
    parser.add_argument("--all", action="store_true", help="prune: everything that no mount has open")
    parser.add_argument("--to", metavar="SIZE", help="prune: down to SIZE (default: to --cache-size)")
    parser.add_argument("--dry-run", action="store_true", help="rm, prune, verify: change nothing, say what would go")


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs cache [OPTIONS] du|ls|rm|prune|verify`."""
    parser = verb_parser("cache", "Look after the cache; mounts may use it meanwhile.")
    _add_arguments(parser)
    asks_for_help = arguments[:1] == ["help"]
    given = parse_verb(parser, ["--help"] if asks_for_help else arguments, headings=("cache",))
    if given is None:
        return 0
    return cache.run(given, verb_config(given, environment), say=tell, warn=warn)
