"""`regfs prefetch [OPTIONS] IMAGE [PATH…] …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from regfs.app.config import not_empty
from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.exit_codes import exit_code
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import say_nothing, tell, warn
from regfs.errors import InvalidOption
from regfs.model.userinfo import reference_without_userinfo, without_userinfo

if TYPE_CHECKING:
    from regfs.verbs.prefetch import Prefetched


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "prefetch",
        "Fetch all layers of images into the cache, for later mounts. When one image fails, the others are fetched all "
        "the same; the exit code is the highest of all. A word that begins with a slash is a PATH in the image before "
        "it: of layers that can be read chunk by chunk, only what is at and below such paths is fetched.",
    )
    made.add_argument("images", metavar="IMAGE [PATH…]", nargs="*", help=IMAGE_HELP)
    made.add_argument(
        "--file",
        metavar="LIST",
        type=not_empty,
        help="read images from LIST too, one a line, comments after #; - is stdin",
    )
    made.add_argument(
        "--start",
        action="store_true",
        help="of such layers, fetch only what the image's start reads: its program, the interpreter, the libraries",
    )
    add_format(made)
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Prefetch, and print a line for each image; return the highest exit code of all."""
    from regfs.verbs.prefetch import prefetch, wanted

    images = [*given.images, *(_lines_of(given.file) if given.file is not None else ())]
    if not images:
        raise InvalidOption(f"no image is named: {parser().format_usage().strip()}")
    worst = 0
    say = say_nothing if given.quiet else warn
    asked = [each._replace(only_start=given.start) for each in wanted(images)]
    for each in prefetch(asked, config=verb_config(given, environment), environment=environment, say=say):
        code = 0 if each.failure is None else exit_code(each.failure)
        worst = max(worst, code)
        for note in each.notes:
            warn(note)
        if given.format == "json":
            tell_json(_as_json(each, code))
        elif each.failure is not None:
            is_named = len(asked) == 1 or each.asked in str(each.failure)
            warn(str(each.failure) if is_named else f"{each.asked}: {each.failure}")
        else:
            tell(each.name)
    return worst


def _as_json(each: Prefetched, code: int) -> dict[str, object]:
    return {
        "image": reference_without_userinfo(each.asked) or without_userinfo(each.asked),
        "name": each.name or None,
        "state": "cached" if each.failure is None else "failed",
        "exit_code": code,
        "error": None if each.failure is None else without_userinfo(str(each.failure)),
        "layers": each.layers,
        "received_bytes": each.received_bytes,
    }


def _lines_of(path: str) -> list[str]:
    """Return the images in the list *path*, `-` being stdin, without comments. Raises InvalidOption."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
    except UnicodeDecodeError:
        raise InvalidOption(f"{path} is not a text file") from None
    except OSError as error:
        raise InvalidOption(f"--file {path}: {error.strerror}") from None
    return [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]
