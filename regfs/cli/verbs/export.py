"""`regfs export [OPTIONS] IMAGE… > FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from regfs.app.config import not_empty
from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, add_format, verb_parser
from regfs.cli.command_config import verb_config
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import say_nothing, warn
from regfs.errors import InvalidOption
from regfs.model.units import in_units


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "export",
        "Write images, with what refers to them, as an OCI image layout in a tar archive: for regfs import on a "
        "machine that reaches no registry, and for all that reads oci-archive: (skopeo, podman). Layers come as the "
        "registry sends them, so that it has to be reached.",
    )
    made.add_argument("images", metavar="IMAGE", nargs="*", help=IMAGE_HELP)
    made.add_argument("-o", "--output", metavar="FILE", type=not_empty, help="write to FILE instead of stdout")
    made.add_argument("--pinned", action="store_true", help="all images that are pinned, too")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Write the archive, and say on stderr what is in it."""
    from regfs.verbs.export import emptied_after_errors, export, new_file

    if not given.images and not given.pinned:
        raise InvalidOption(f"no image is named: {parser().format_usage().strip()}")
    if given.output is None and given.format == "json":
        raise InvalidOption("--json needs -o FILE, for standard output has the archive otherwise")
    if given.output is None and sys.stdout.isatty():
        raise InvalidOption("an archive is not for a terminal: regfs export IMAGE… > FILE, or -o FILE")
    say = say_nothing if given.quiet else warn
    opened = emptied_after_errors(sys.stdout.buffer) if given.output is None else new_file(Path(given.output))
    with opened as file:
        done = export(
            given.images, file, config=verb_config(given, environment), environment=environment, say=say,
            with_pinned=given.pinned,
        )  # fmt: skip
    for note in done.notes:
        warn(note)
    for name in done.names:
        say(f"{name} is in the archive")
    say(f"{in_units(done.size)} in {len(done.names)} image{'' if len(done.names) == 1 else 's'}")
    if given.format == "json":
        tell_json({"names": done.names, "size": done.size, "notes": done.notes})
    return 0
