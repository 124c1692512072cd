"""`regfs inspect [OPTIONS] IMAGE`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_result
from regfs.model.path_text import escaped
from regfs.model.units import in_units

if TYPE_CHECKING:
    from regfs.verbs.inspect import Blob, Inspected

_INDENT = " " * 12
_MOST_COMMAND = 90
_MOST_REFERRERS = 50


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "inspect",
        "Show what an image is: platforms, digests, what it starts, the commands that made its layers, and what refers "
        "to it. No layer is fetched.",
    )
    made.add_argument("image", metavar="IMAGE", help=IMAGE_HELP)
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print one screen, or one object."""
    from regfs.verbs.inspect import inspect

    found = inspect(given.image, config=verb_config(given, environment), environment=environment)
    tell_result(given.format, "\n".join(_lines(found)), asdict(found))
    return 0


def _lines(found: Inspected) -> Iterator[str]:
    yield _line("name", found.name)
    yield _line("type", found.media_type)
    yield from _list("platforms", found.platforms)
    if found.manifest_digest != found.digest:
        yield _line("manifest", found.manifest_digest)
    yield from (
        _line(title, text) for title, text in (("platform", found.platform), ("created", found.created)) if text
    )
    yield from _config(found.config)
    yield from _list("annotations", [f"{name}={value}" for name, value in sorted(found.annotations.items())])
    yield from _list("referrers", _referrers(found))
    total = sum(blob.size for blob in found.blobs)
    title = "layers" if found.platform else "blobs"
    yield _line(title, f"{len(found.blobs)}, {in_units(total)} compressed")
    yield from map(_blob, found.blobs)


def _config(config: Mapping[str, Any]) -> Iterator[str]:
    for title, key in (("entrypoint", "Entrypoint"), ("command", "Cmd")):
        words = config.get(key)
        if isinstance(words, list) and words:
            yield _line(title, shlex.join(map(str, words)))
    for title, key in (("user", "User"), ("directory", "WorkingDir"), ("signal", "StopSignal")):
        if config.get(key):
            yield _line(title, str(config[key]))
    for title, key in (("env", "Env"), ("ports", "ExposedPorts"), ("volumes", "Volumes"), ("labels", "Labels")):
        value = config.get(key)
        if isinstance(value, dict):
            yield from _list(title, [f"{name}={text}" if text else name for name, text in sorted(value.items())])
        elif isinstance(value, list):
            yield from _list(title, [str(each) for each in value])


def _referrers(found: Inspected) -> list[str]:
    if found.referrers is None:
        return [f"not known: {found.referrers_failure}"]
    lines = []
    for each in found.referrers[:_MOST_REFERRERS]:
        lines.append(f"{each.digest[:19]}  {each.artifact_type}")
        for signature in each.signatures:
            names = ", ".join((*signature.signers, *signature.times)) or "an unnamed signer"
            lines += [f"  signed by {names}", f"  verified: {signature.verified}"]
    return lines


def _blob(blob: Blob) -> str:
    command = " ".join(blob.command.split())
    shown = command if len(command) <= _MOST_COMMAND else f"{command[: _MOST_COMMAND - 1]}…"
    return f"{_INDENT}{blob.digest[:19]}  {in_units(blob.size):>9}  {escaped(shown or blob.media_type)}"


def _line(title: str, text: str) -> str:
    return f"{title:<{len(_INDENT)}}{escaped(text)}"  # a line of its own could say "verified"


def _list(title: str, values: list[str] | tuple[str, ...]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield _line("" if number else title, value)
