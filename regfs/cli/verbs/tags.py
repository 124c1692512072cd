"""`regfs tags [OPTIONS] REPOSITORY`."""

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
        "tags",
        "List the tags of a repository, as a mount or a verb with this cache heard of them up to --tag-ttl ago (60s). "
        "--tag-ttl 0 asks the registry now, and shows what was just pushed; regfs refresh lets mounts ask.",
    )
    made.add_argument("repository", metavar="REPOSITORY", help="[registry/]repository, or its path in a mount")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print one tag on each line."""
    from regfs.verbs.listings import tags

    found = tags(given.repository, config=verb_config(given, environment), environment=environment)
    if given.format == "json":
        tell_json({"repository": given.repository, "tags": found})
    elif found:
        tell("\n".join(found))
    return 0
