"""`regfs import [OPTIONS] FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import nullcontext

from regfs.app.config import not_empty
from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import say_nothing, tell, warn
from regfs.errors import InvalidOption


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "import",
        "Read images from an archive that regfs export, skopeo copy (oci-archive:) or docker save has written, verify "
        "and unpack them into the cache. Mounts and verbs show them then without a registry. No network is used.",
    )
    made.add_argument("file", metavar="FILE", type=not_empty, help="the archive, also compressed; - is stdin")
    made.add_argument(
        "--as", dest="name", metavar="NAME", type=not_empty,
        help="what its image is called, or the repository of its tags, where the archive does not say",
    )  # fmt: skip
    made.add_argument("--pin", action="store_true", help="keep all of them, not only those that were pinned before")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("cache",), options=("default-registry", "platform", "policy"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Import the archive, and print the full names of its images."""
    from regfs.verbs.import_archive import import_archive

    is_stdin = given.file == "-"
    if is_stdin and sys.stdin.isatty():
        raise InvalidOption("an archive is not typed: regfs import FILE, or … | regfs import -")
    try:
        opened = nullcontext(sys.stdin.buffer) if is_stdin else open(given.file, "rb")  # noqa: SIM115
    except OSError as error:
        raise InvalidOption(f"{given.file}: {error.strerror}") from None
    with opened as file:
        done = import_archive(
            file, config=verb_config(given, environment), environment=environment,
            say=say_nothing if given.quiet else warn, name=given.name, with_pins=given.pin,
        )  # fmt: skip
    for note in done.notes:
        warn(note)
    if given.format == "json":
        images = [{"name": name, "is_pinned": name in done.pinned} for name in done.names]
        tell_json({"images": images, "notes": done.notes})
        return 0
    for name in done.names:
        tell(f"{name} (pinned)" if name in done.pinned else name)
    return 0
