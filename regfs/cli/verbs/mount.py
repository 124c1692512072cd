"""`regfs mount [OPTIONS] IMAGE DIR`, and `regfs#IMAGE DIR` as mount(8) and fstab have it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from regfs.app.config import Config, not_empty, parse_path, with_options
from regfs.cli.arguments import IMAGE_HELP, Parser, add_common, add_format
from regfs.cli.command_config import log_to_terminal, with_words
from regfs.cli.json_output import tell_json
from regfs.cli.mount_options import IN_MEMORY, image_words
from regfs.cli.settings import configured
from regfs.cli.source_argument import is_source
from regfs.cli.terminal import say_nothing, tell, warn
from regfs.errors import CacheFull, InvalidOption
from regfs.model.names import ONE_IMAGE
from regfs.process.descriptors import raise_descriptor_limit
from regfs.process.user import is_root_of_machine
from regfs.process.user_namespaces import open_user_namespace


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
        """Return what argparse does, with IN_MEMORY as the value that is left out."""
        return super().parse_known_intermixed_args(
            [f"--writable={IN_MEMORY}" if word == "--writable" else word for word in args], namespace
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
        "--idmap",
        metavar="MAP",
        help="show owners as a user namespace has them, for a container that is in it: a process id, the path of a "
        "user namespace, or FIRST:OUTSIDE:COUNT (0:100000:65536)",
    )
    made.add_argument(
        "--fuse",
        action="store_true",
        help="mount it by FUSE, where any user may: a daemon serves it, and fetches it when it is first looked into "
        "(the default for ordinary users, and for an image that the cache has no room for)",
    )
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_format(made)
    return add_common(made, headings=("mount", "registry", "cache"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Mount, and print the full name of the image; progress goes to stderr."""
    config = replace(with_options(configured(environment), given.given), is_quiet=given.quiet, debug=given.debug)
    asked = _Asked(
        given.image, given.directory, by_fuse=given.fuse, writable=given.writable, id_map=given.idmap,
        as_json=given.format == "json",
    )  # fmt: skip
    return _mount(asked, config, environment)


def mount_source(
    image: str, directory: str, words: Sequence[str], *, config: Config, sloppy: bool, environment: Mapping[str, str]
) -> int:
    """Mount *image* as `regfs#IMAGE` in fstab asks for it, with the words of `-o`. Raises RegfsError."""
    own = image_words(words)
    config = with_words(config, own.others, sloppy=sloppy)
    if config.fsname is None:  # as mount(8) got it: `mount -a` does not mount again what has that source
        config = replace(config, fsname=f"{ONE_IMAGE}{image}")
    return _mount(
        _Asked(image, directory, by_fuse=own.by_fuse, writable=own.writable, id_map=own.id_map), config, environment
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """The image and the directory. Writes go below the directory *writable*, or to memory (IN_MEMORY).

    *id_map* names a user namespace (process/user_namespaces.py).
    """

    image: str
    directory: str
    by_fuse: bool
    writable: str | None
    id_map: str | None
    as_json: bool = False


def _mount(given: _Asked, config: Config, environment: Mapping[str, str]) -> int:
    from regfs.verbs.mount import Writable, mount

    if is_source(given.image):
        raise InvalidOption(f"{given.image} is a registry, no image: regfs {given.image} {given.directory} mounts it")
    if given.by_fuse or not is_root_of_machine():
        return _mount_by_fuse(given, config, environment)
    if config.owner != "image":
        raise InvalidOption(
            f"--owner {config.owner} needs --fuse: the kernel alone shows the owners of the image, or by --idmap others"
        )
    log_to_terminal(config, environment)
    raise_descriptor_limit()  # mounting holds one for each layer
    writable = None
    if given.writable is not None:
        writable = Writable(parse_path(given.writable) if given.writable != IN_MEMORY else None)
    say = say_nothing if config.is_quiet else warn
    user_namespace = None if given.id_map is None else open_user_namespace(given.id_map)
    try:
        name = mount(
            given.image, given.directory, config=config, environment=environment, writable=writable, say=say,
            user_namespace=user_namespace,
        )  # fmt: skip
    except CacheFull as failure:
        if writable is not None or user_namespace is not None:
            raise CacheFull(f"{failure}; the kernel mounts only what is there as a whole") from failure
        warn(f"{failure}; mounted by FUSE instead, which fetches what is read")
        return _mount_by_fuse(given, config, environment)
    if given.as_json:
        _tell_as_json(name, given.directory, "erofs")
    elif not config.is_quiet:
        tell(f"{name} is mounted at {os.path.abspath(given.directory)}")
    return 0


def _mount_by_fuse(given: _Asked, config: Config, environment: Mapping[str, str]) -> int:
    """Let a daemon show the image, as the whole tree is shown."""
    from regfs.cli.mount_command import mount
    from regfs.daemon.session import driver_of
    from regfs.mount.mountpoint import mounts
    from regfs.verbs.image_argument import read_reference

    if given.writable is not None:
        raise InvalidOption(
            "--writable needs a mount by the kernel, which root alone can make, without --fuse; regfs run [--keep DIR] "
            "IMAGE can be written to by any user"
        )
    if given.id_map is not None:
        raise InvalidOption("--idmap needs a mount by the kernel, which root alone can make")
    reference = read_reference(given.image, config.default_registry, mounts())
    repository, version = reference.repository, reference.version
    if version.digest is not None or version.short_digest is not None:
        version = version._replace(tag=None)
    config = replace(
        config, default_registry=repository.registry, image=f"{repository.path}{version}", foreground=config.debug
    )
    if not given.as_json:
        return mount(config, given.directory, environment)
    name = f"{repository}{version}"
    driver = driver_of(config)
    return mount(
        replace(config, is_quiet=True), given.directory, environment,
        announce=lambda _text: _tell_as_json(name, given.directory, driver),
    )  # fmt: skip


def _tell_as_json(name: str, directory: str, driver: str) -> None:
    from regfs.mount.mountpoint import resolved

    tell_json({"name": name, "mountpoint": resolved(directory), "driver": driver})
