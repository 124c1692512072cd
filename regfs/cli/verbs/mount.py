"""`regfs mount [OPTIONS] IMAGE DIR`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import NoReturn

from regfs.cli.arguments import IMAGE_HELP, Parser, add_common
from regfs.cli.configuration import verb_config
from regfs.cli.source_argument import is_source
from regfs.cli.terminal import say_nothing, tell, warn
from regfs.config import not_empty, parse_path
from regfs.errors import InvalidOption, MountFailure
from regfs.process.descriptors import raise_descriptor_limit

_IN_MEMORY = "-"


class _Parser(Parser):
    """Takes `--writable` without a value too; a value needs `=`, or IMAGE would be taken for it."""

    def error(self, message: str) -> NoReturn:
        """Raise InvalidOption, which also says how registries are mounted."""
        try:
            super().error(message)
        except InvalidOption as error:
            raise InvalidOption(f"{error}; to mount all registries: regfs MOUNTPOINT") from None

    def parse_known_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Return what argparse does, with _IN_MEMORY as the value that is left out."""
        return super().parse_known_intermixed_args(
            [f"--writable={_IN_MEMORY}" if word == "--writable" else word for word in args], namespace
        )


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = _Parser(
        prog="regfs mount",
        allow_abbrev=False,
        add_help=False,
        description="Mount the merged files of one image on DIR. Everything is fetched first; then the kernel serves "
        "it alone (root, Linux 6.12 or newer). `regfs umount DIR` or umount(8) ends it.",
    )
    made.add_argument("image", metavar="IMAGE", help=IMAGE_HELP)
    made.add_argument("directory", metavar="DIR", type=not_empty)
    made.add_argument(
        "--writable",
        metavar="UPPER",
        help="let the files be changed: what is written goes below the directory UPPER (--writable=UPPER), or, by "
        "--writable alone, into memory until the image is unmounted",
    )
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return add_common(made, headings=("mount", "registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Mount, and print the full name of the image; progress goes to stderr."""
    from regfs.export.erofs.mounting import reason_against
    from regfs.verbs.mount import Writable, mount

    if is_source(given.image):
        raise InvalidOption(f"{given.image} is a registry, no image: regfs {given.image} {given.directory} mounts it")
    config = verb_config(given, environment)
    if reason := reason_against(config.cache_dir):
        raise MountFailure(f"the kernel cannot mount {given.image}: {reason}")
    raise_descriptor_limit()  # mounting holds one for each layer
    writable = None
    if given.writable is not None:
        writable = Writable(parse_path(given.writable) if given.writable != _IN_MEMORY else None)
    say = say_nothing if given.quiet else warn
    name = mount(given.image, given.directory, config=config, environment=environment, writable=writable, say=say)
    if not given.quiet:
        tell(f"{name} is mounted at {os.path.abspath(given.directory)}")
    return 0
