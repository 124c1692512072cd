"""`regfs repos [OPTIONS] [REGISTRY]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import tell


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "repos", "List the repositories of a registry that has a catalog. Docker Hub and GHCR have none."
    )
    made.add_argument(
        "registry",
        metavar="REGISTRY",
        nargs="?",
        help="its name, or its path in a mount; the default registry where it is left out",
    )
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print one repository on each line."""
    from regfs.verbs.listings import repositories

    config = verb_config(given, environment)
    found = repositories(given.registry, config=config, environment=environment)
    if given.format == "json":
        tell_json({"registry": found.registry, "repositories": found.repositories})
    elif found.repositories:
        tell("\n".join(found.repositories))
    return 0
