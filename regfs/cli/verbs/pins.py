"""`regfs pins [OPTIONS]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import tell


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("pins", "List the images that are pinned.")
    add_format(made)
    return add_common(made, headings=("cache",))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print one name on each line."""
    from regfs.verbs.pin import pinned

    found = pinned(verb_config(given, environment))
    if given.format == "json":
        tell_json({"pins": [{"name": each.name, "digest": each.digest} for each in found]})
    elif found:
        tell("\n".join(each.name for each in found))
    return 0
