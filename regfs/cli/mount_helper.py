"""`mount.regfs SOURCE MOUNTPOINT`, as mount(8) calls it for the type `regfs`. Used by main.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regfs.cli.arguments import mount_helper_parser
from regfs.cli.command_config import with_source, with_words
from regfs.cli.mount_command import mount
from regfs.cli.settings import configured
from regfs.cli.source_argument import image_of_source


def run_mount_helper(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `mount.regfs` as mount(8) calls it and return the exit code of `regfs`. Raises RegfsError."""
    parser = mount_helper_parser()
    given = parser.parse_intermixed_args(list(arguments))
    if (image := image_of_source(given.source)) is not None:
        from regfs.cli.verbs.mount import mount_source

        if given.fake:
            return 0
        config = configured(environment)
        return mount_source(
            image, given.mountpoint, given.words, config=config, sloppy=given.sloppy, environment=environment
        )
    config = with_source(configured(environment), given.source, given.mountpoint)
    config = with_words(config, given.words, sloppy=given.sloppy)
    return 0 if given.fake else mount(config, given.mountpoint, environment)
