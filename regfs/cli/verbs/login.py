"""`regfs login [OPTIONS] [REGISTRY]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from getpass import getpass

from regfs.app.config import not_empty
from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_result
from regfs.cli.terminal import warn
from regfs.errors import InvalidOption


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "login",
        "Try a user name and password at a registry, and store them where docker and podman look for them: in "
        "~/.docker/config.json ($DOCKER_CONFIG, $REGISTRY_AUTH_FILE), or by the credential helper that it names.",
    )
    made.add_argument("registry", metavar="REGISTRY", nargs="?", help="the default registry where it is left out")
    made.add_argument("-u", "--username", metavar="NAME", type=not_empty, help="asked for where it is left out")
    made.add_argument("--password-stdin", action="store_true", help="read the password or token from stdin")
    add_format(made)
    return add_common(made, headings=("registry",))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Log in, and say where the login is stored."""
    from regfs.verbs.login import login

    config = verb_config(given, environment)
    registry = given.registry or config.default_registry
    username, secret = _asked(given, registry)
    done = login(registry, username, secret, config=config, environment=environment)
    for note in done.notes:
        warn(f"note: {note}")
    tell_result(
        given.format,
        f"login for {registry} stored in {done.place}",
        {"registry": registry, "stored_in": done.place, "notes": done.notes},
    )
    return 0


def _asked(given: argparse.Namespace, registry: str) -> tuple[str, str]:
    if given.password_stdin:
        if given.username is None:
            raise InvalidOption("--password-stdin needs -u NAME")
        return given.username, sys.stdin.read().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidOption("there is no terminal to ask for the password; --password-stdin reads it from stdin")
    try:
        username = given.username or _asked_name(registry)
        return username, getpass(f"password of {username} for {registry}: ")
    except EOFError:
        raise InvalidOption("no password was typed") from None


def _asked_name(registry: str) -> str:
    # Not by input()'s own prompt, which may go to standard output, before the JSON.
    sys.stderr.write(f"user name for {registry}: ")
    sys.stderr.flush()
    return input().strip()
