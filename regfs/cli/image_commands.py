"""The verbs that take images: `regfs unpack`, `path` and `prefetch`. verbs/images.py and verbs/path.py do the work.

Used by commands.py. What a verb needs is imported when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regfs.cli.arguments import verb_parser
from regfs.cli.exit_codes import FAILED, exit_code
from regfs.cli.output import tell, warn
from regfs.cli.verb_arguments import parse_verb, verb_config
from regfs.config import not_empty
from regfs.errors import InvalidOption
from regfs.process.descriptors import raise_descriptor_limit
from regfs.telemetry.userinfo import reference_without_userinfo, without_userinfo

if TYPE_CHECKING:
    from regfs.verbs.images import Prefetched

_IMAGE_HELP = "[registry/]repository[:tag][@digest], or its path in a mount"


def unpack_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs unpack [OPTIONS] IMAGE [DIR]`."""
    parser = verb_parser("unpack", "Write all layers of an image, merged, into DIR (./rootfs), which must be empty.")
    parser.add_argument("image", metavar="IMAGE", help=_IMAGE_HELP)
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument("directory", metavar="DIR", nargs="?", default="rootfs", type=not_empty)
    given = parse_verb(parser, arguments, headings=("registry", "cache"))
    if given is None:
        return 0
    from regfs.verbs import images as verbs

    config = verb_config(given, environment)
    raise_descriptor_limit()  # unpacking holds one for each level of the tree
    say = _say_nothing if given.quiet else warn
    directory = Path(given.directory).absolute()
    done = verbs.unpack(given.image, directory, config=config, environment=environment, say=say, warn=warn)
    for note in done.notes:
        warn(note)
    tell(done.result)
    return 0 if done.is_complete else FAILED


def path_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs path [--mount DIR] IMAGE`."""
    del environment
    parser = verb_parser(
        "path",
        "Print the path of an image in a mount by its digest. What is there never changes, unlike what a tag names: so "
        "it is the path for what runs long.",
    )
    parser.add_argument("image", metavar="IMAGE", help=_IMAGE_HELP)
    parser.add_argument("--mount", metavar="DIR", type=not_empty, help="the mount to look in, where there are several")
    given = parse_verb(parser, arguments)
    if given is None:
        return 0
    from regfs.verbs.path import image_path

    tell(str(image_path(given.image, given.mount)))
    return 0


def prefetch_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs prefetch [OPTIONS] IMAGE…`."""
    parser = verb_parser(
        "prefetch",
        "Fetch all layers of images into the cache, for mounts to come. One that fails does not keep the others from "
        "coming; the exit code is the highest of all.",
    )
    parser.add_argument("images", metavar="IMAGE", nargs="*", help=_IMAGE_HELP)
    parser.add_argument(
        "--file",
        metavar="LIST",
        type=not_empty,
        help="read images from LIST too, one a line, comments after #; - is stdin",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help='a line for each image: {"image", "name", "state": "cached" or "failed", "exit_code", "error", "layers", '
        '"received_bytes"}; keeps its form from release to release',
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    given = parse_verb(parser, arguments, headings=("registry", "cache"))
    if given is None:
        return 0
    from regfs.verbs import images as verbs

    images = [*given.images, *(_lines_of(given.file) if given.file is not None else ())]
    if not images:
        raise InvalidOption(f"no image is named: {parser.format_usage().strip()}")
    worst = 0
    say = _say_nothing if given.quiet else warn
    for each in verbs.prefetch(images, config=verb_config(given, environment), environment=environment, say=say):
        code = 0 if each.failure is None else exit_code(each.failure)
        worst = max(worst, code)
        if given.json:
            tell(_prefetched_json(each, code))
        elif each.failure is not None:
            is_named = len(images) == 1 or each.asked in str(each.failure)
            warn(str(each.failure) if is_named else f"{each.asked}: {each.failure}")
        else:
            tell(each.name)
    return worst


def _prefetched_json(each: Prefetched, code: int) -> str:
    import json

    told = {
        "image": reference_without_userinfo(each.asked) or without_userinfo(each.asked),
        "name": each.name or None,
        "state": "cached" if each.failure is None else "failed",
        "exit_code": code,
        "error": None if each.failure is None else without_userinfo(str(each.failure)),
        "layers": each.layers,
        "received_bytes": each.received_bytes,
    }
    return json.dumps(told)


def _lines_of(path: str) -> list[str]:
    """Return what is in the list *path*, `-` being stdin, without comments. Raises InvalidOption."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise InvalidOption(f"{path} is not a text file") from None
        raise InvalidOption(f"--file {path}: {error.strerror}") from None
    return [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]


def _say_nothing(_message: str) -> None:
    """Take the place of warn() where no progress is wanted."""
