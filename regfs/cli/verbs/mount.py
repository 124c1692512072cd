"""`regfs mount [OPTIONS] IMAGE DIR`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from regfs.app.config import default_config, not_empty, parse_path, with_options
from regfs.cli.arguments import IMAGE_HELP, Parser, add_common
from regfs.cli.configuration import verb_config
from regfs.cli.source_argument import is_source
from regfs.cli.terminal import say_nothing, tell, warn
from regfs.errors import InvalidOption, MountFailure
from regfs.process.descriptors import raise_descriptor_limit
from regfs.process.user import is_root_of_machine

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
    made.add_argument(
        "--fuse",
        action="store_true",
        help="mount it by FUSE, where any user may: a daemon serves it, and fetches it when it is first looked into "
        "(the default for ordinary users)",
    )
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return add_common(made, headings=("mount", "registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Mount, and print the full name of the image; progress goes to stderr."""
    from regfs.export.erofs.mounting import reason_against
    from regfs.verbs.mount import Writable, mount

    if is_source(given.image):
        raise InvalidOption(f"{given.image} is a registry, no image: regfs {given.image} {given.directory} mounts it")
    if given.fuse or not is_root_of_machine():
        return _mount_by_fuse(given, environment)
    config = verb_config(given, environment)
    if reason := reason_against(config.cache_dir):
        raise MountFailure(f"the kernel cannot mount {given.image}: {reason}; --fuse mounts it by FUSE")
    raise_descriptor_limit()  # mounting holds one for each layer
    writable = None
    if given.writable is not None:
        writable = Writable(parse_path(given.writable) if given.writable != _IN_MEMORY else None)
    say = say_nothing if given.quiet else warn
    name = mount(given.image, given.directory, config=config, environment=environment, writable=writable, say=say)
    if not given.quiet:
        tell(f"{name} is mounted at {os.path.abspath(given.directory)}")
    return 0


def _mount_by_fuse(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Let a daemon show the image, as the whole tree is shown."""
    from regfs.cli.mount_command import mount
    from regfs.mount.mountpoint import mounts
    from regfs.verbs.image_argument import read_reference

    if given.writable is not None:
        raise InvalidOption("--writable needs a mount by the kernel, which root alone can make")
    config = with_options(default_config(environment), given.given)
    reference = read_reference(given.image, config.default_registry, mounts())
    repository, digest = reference.repository, reference.digest or reference.short_digest
    version = f"@{digest}" if digest is not None else f":{reference.tag}"
    config = replace(
        config, default_registry=repository.registry, image=f"{repository.path}{version}", is_quiet=given.quiet,
        debug=given.debug, foreground=given.debug,
    )  # fmt: skip
    return mount(config, given.directory, environment)
