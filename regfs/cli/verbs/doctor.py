"""`regfs doctor`: what this machine can do, and the remedy for what it cannot."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.exit_codes import FAILED
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import tell


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "doctor",
        "Say what this machine and this user can do with regfs, and what to do about the rest. Nothing is changed. The "
        "exit code is 0 where registries can be mounted.",
    )
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print a line for each finding; return whether what is needed is there."""
    from regfs.verbs.doctor import examine

    findings = list(examine(config=verb_config(given, environment), environment=environment))
    if given.format == "json":
        tell_json({"findings": [finding._asdict() for finding in findings]})
    else:
        tell("\n".join(f"{'ok' if each.is_well else 'no':<3} {each.name}: {each.detail}" for each in findings))
    return FAILED if any(each.is_needed and not each.is_well for each in findings) else 0
