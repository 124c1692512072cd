"""`regfs mount`: kept for a mount of one image; until there is one, it says how to mount."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from regfs.cli.arguments import Parser
from regfs.errors import InvalidOption

_REMEDY = (
    "to mount needs no verb: regfs MOUNTPOINT shows all registries, regfs HOST MOUNTPOINT makes HOST the default "
    "one; an image is a directory in it"
)


class _AnyWords(Parser):
    """Takes any words, so that the remedy is the answer to all of them."""

    def parse_known_intermixed_args(  # type: ignore[override]
        self, *_args: Any, **_settings: Any
    ) -> tuple[argparse.Namespace, list[str]]:
        """Return nothing."""
        return argparse.Namespace(), []


def parser() -> Parser:
    """Return a parser that takes any words."""
    return _AnyWords(prog="regfs mount", description=_REMEDY, add_help=False)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Raise InvalidOption, which names the command that mounts."""
    del given, environment
    raise InvalidOption(_REMEDY)
