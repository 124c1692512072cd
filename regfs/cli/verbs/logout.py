"""`regfs logout [OPTIONS] [REGISTRY]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_result


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser("logout", "Remove the login for a registry from where regfs login and docker login store it.")
    made.add_argument("registry", metavar="REGISTRY", nargs="?", help="the default registry where it is left out")
    add_format(made)
    return add_common(made, headings=("registry",))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Log out, and say whether there was a login."""
    from regfs.verbs.login import logout

    registry = given.registry or verb_config(given, environment).default_registry
    is_removed = logout(registry, environment=environment)
    tell_result(
        given.format,
        f"login for {registry} removed" if is_removed else f"there was no login for {registry}",
        {"registry": registry, "is_removed": is_removed},
    )
    return 0
