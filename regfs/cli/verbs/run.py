"""`regfs run [OPTIONS] IMAGE [COMMAND…]`."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from regfs.app.config import Config, parse_path, with_options
from regfs.cli.arguments import IMAGE_HELP, Parser, add_common
from regfs.cli.terminal import say_nothing, warn
from regfs.errors import InvalidOption, RegfsError
from regfs.export.container.plan import Asked, parse_env, parse_network, parse_volume

FAILED = 125
"""The exit status where regfs fails, and not the program: docker's."""

_OWNERS = ("owner", "subuid")


_PORTS = "the network is the machine's, so that a port of the program is one of the machine"
_LIMITS = "systemd-run sets limits: systemd-run --scope -p MemoryMax=1G -p CPUQuota=50% regfs run IMAGE"
_NO_CONTAINER = "regfs run ends with its program, and leaves no container that has a name"
_REMEDIES = {
    "-p": _PORTS, "--publish": _PORTS, "-P": _PORTS, "--publish-all": _PORTS,
    "-m": _LIMITS, "--memory": _LIMITS, "--cpus": _LIMITS, "--pids-limit": _LIMITS,
    "--name": _NO_CONTAINER, "--restart": _NO_CONTAINER,
    "--detach": "the shell's & or systemd-run runs it in the background",
    "--mount": "-v HOST:IMAGE[:ro] brings a directory or a file",
}  # fmt: skip


class RunParser(Parser):
    """Gives what follows IMAGE to COMMAND, options too."""

    remedies = _REMEDIES

    def own_words(self, words: Sequence[str]) -> Sequence[str]:
        """Return the words up to IMAGE."""
        return words[: self._image_at(words) + 1]

    def parse_known_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Return what argparse makes of the words up to IMAGE, with the others as `command`."""
        own = self.own_words(args)
        given, unknown = super().parse_known_intermixed_args([word for word in own if word != "--"], namespace)
        given.command = tuple(args[len(own) :])
        return given, unknown

    def _image_at(self, words: Sequence[str]) -> int:
        """Return where the first word is that is neither an option nor the value of one."""
        takes_value = {text for action in self._actions for text in action.option_strings if action.nargs is None}
        takes_value -= {text for action in self._actions if action.nargs == 0 for text in action.option_strings}
        at = 0
        while at < len(words):
            word = words[at]
            if word == "--":
                return at + 1
            if not word.startswith("-") or word == "-":
                return at
            # Of short options in one word the last may have its value in the next word.
            is_whole = word in takes_value or (
                word[1] != "-" and f"-{word[-1]}" in takes_value and self._are_flags(word)
            )
            at += 2 if is_whole else 1
        return at

    def _are_flags(self, word: str) -> bool:
        """Tell whether all but the last of the short options in *word* are flags."""
        flags = {text for action in self._actions if action.nargs == 0 for text in action.option_strings}
        return all(f"-{letter}" in flags for letter in word[1:-1])


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = add_running(
        RunParser(
            prog="regfs run",
            usage="regfs run [OPTIONS] IMAGE [COMMAND…]",
            allow_abbrev=False,
            add_help=False,
            description="Run the program of an image, or COMMAND in it, with namespaces of its own: what it writes is "
            "gone when it ends, and nothing stays mounted or running. regfs ends with its exit status; 125: regfs "
            "failed, 126: the program cannot be executed, 127: there is none, 128 and the number of a signal that "
            "ended it.",
        )
    )
    made.add_argument(
        "--entrypoint", metavar="PROGRAM", help="run PROGRAM in the place of the image's; COMMAND is what it is given"
    )
    made.add_argument("-i", "--interactive", action="store_true", help="let the program read standard input")
    made.add_argument("-t", "--tty", action="store_true", help="give the program a terminal of its own")
    return made


def add_running(made: Parser) -> Parser:
    """Add the options that `regfs shell` has too to *made*; return it."""
    made.add_argument("image", metavar="IMAGE", help=IMAGE_HELP)
    made.add_argument(
        "-v", "--volume", action="append", default=[], metavar="HOST:IMAGE[:ro]",
        help="put the directory or file HOST at the path IMAGE; ro: read-only; may be repeated",
    )  # fmt: skip
    made.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME[=VALUE]",
        help="set a variable, without a value to what it is here; may be repeated",
    )  # fmt: skip
    made.add_argument("-w", "--workdir", metavar="DIR", help="the directory to start in (default: the image's)")
    made.add_argument(
        "-u",
        "--user",
        metavar="USER[:GROUP]",
        help="the user to run as: names of the image, or numbers (default: the image's)",
    )
    made.add_argument(
        "--network", metavar="host|none", default="host", help="host: the machine's network (default); none: no network"
    )
    made.add_argument("--keep", metavar="DIR", type=parse_path, help="keep what is written below DIR, for the next run")
    made.add_argument(
        "--fuse", action="store_true",
        help="show the files by FUSE, and fetch them when they are read (the default for ordinary users, and for an "
        "image that the cache has no room for)",
    )  # fmt: skip
    made.add_argument("--rm", action="store_true", help="accepted: what is not kept by --keep is always removed")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return add_common(made, headings=("registry", "cache"), options=("owner", "subuid", "allow-suid", "allow-dev"))


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run the program, and return its exit status, or FAILED where regfs could not run it."""
    if given.tty and given.interactive and not os.isatty(0):
        warn("-t needs a terminal, and standard input is not one: leave -t out")
        return FAILED
    return run_image(
        given, environment, command=given.command, entrypoint=given.entrypoint, has_input=given.interactive,
        has_terminal=given.tty,
    )  # fmt: skip


def run_image(
    given: argparse.Namespace,
    environment: Mapping[str, str],
    *,
    command: tuple[str, ...] = (),
    entrypoint: str | None = None,
    has_input: bool,
    has_terminal: bool,
    is_shell: bool = False,
) -> int:
    """Run the image *given*, and return the exit status; a failure of regfs is printed."""
    try:
        asked = asked_of(
            given, environment, command=command, entrypoint=entrypoint, has_input=has_input, has_terminal=has_terminal
        )
        return _run(given, environment, asked=asked, is_shell=is_shell)
    except RegfsError as error:
        warn(str(error))
        return FAILED


def asked_of(
    given: argparse.Namespace,
    environment: Mapping[str, str],
    *,
    command: tuple[str, ...] = (),
    entrypoint: str | None = None,
    has_input: bool,
    has_terminal: bool,
) -> Asked:
    """Return what the options of add_running() ask for. Raises InvalidOption."""
    if given.workdir is not None and not given.workdir.startswith("/"):
        raise InvalidOption(f"-w {given.workdir}: write an absolute path of the image")
    volumes = tuple(parse_volume(text, directory=os.getcwd()) for text in given.volume)
    for volume in volumes:
        if not os.path.exists(volume.host):
            raise InvalidOption(f"-v: {volume.host} does not exist")
    return Asked(
        command=command,
        entrypoint=entrypoint,
        env=tuple(parse_env(given.env, environment)),
        directory=given.workdir,
        user=given.user,
        volumes=volumes,
        network=parse_network(given.network),
        keep=given.keep,
        has_input=has_input,
        has_terminal=has_terminal,
    )


def owner_of(given: argparse.Namespace, config: Config) -> str:
    """Return whose the container's files are, as `--owner` has it.

    Root's container has the owners of the image unless this call says otherwise: a setting in a file is for mounts.
    """
    from regfs.mount.mountpoint import may_mount

    is_given = any(option.name in _OWNERS for option, _ in given.given)
    return config.owner if is_given or not may_mount() else "image"


def _run(given: argparse.Namespace, environment: Mapping[str, str], *, asked: Asked, is_shell: bool) -> int:
    gc.disable()  # collecting takes a twentieth of a start
    from regfs.cli.settings import configured
    from regfs.export.container.supervisor import start

    config = with_options(configured(environment), given.given)
    owner = owner_of(given, config)
    entered = start(asked, owner=owner, allow_suid=config.allow_suid, allow_dev=config.allow_dev)
    try:
        from regfs.cli.command_config import log_to_terminal
        from regfs.export.erofs.mounting import reason_against
        from regfs.verbs.run import Wanted, run

        log_to_terminal(replace(config, debug=given.debug), environment)
        by_fuse = given.fuse or not entered.is_root or bool(reason_against(config.cache_dir))
        wanted = Wanted(image=given.image, asked=asked, by_fuse=by_fuse, is_shell=is_shell)
        progress = say_nothing if given.quiet else warn
        return run(wanted, entered, config=config, environment=environment, say=warn, progress=progress)
    finally:
        entered.end()
