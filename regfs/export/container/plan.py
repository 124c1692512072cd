"""The request of `regfs run`, and the plan that follows: command, environment, user, volumes. Pure; any thread."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os.path import normpath
from pathlib import Path
from typing import NamedTuple

from regfs.errors import InvalidOption
from regfs.model.run_config import RunConfig
from regfs.process.user import FALLBACK_PATH

NETWORKS = ("host", "none")


class Volume(NamedTuple):
    """A directory or file of the machine, *host*, that is at the absolute path *image* in the image."""

    host: str
    image: str
    is_read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The request on the command line. *entrypoint*, *user* and *directory* are None where the image decides.

    *keep* is where changes are kept, None for memory. *has_terminal*: the program gets a terminal of its own.
    """

    command: tuple[str, ...] = ()
    entrypoint: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    directory: str | None = None
    user: str | None = None
    volumes: tuple[Volume, ...] = ()
    network: str = "host"
    keep: Path | None = None
    has_input: bool = False
    has_terminal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What process 1 runs. *user* is `NAME[:GROUP]` or numbers, empty for root.

    *is_user_asked*: the command line has named the user, and not the image. *image* and *platforms* are for messages.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    directory: str
    user: str
    is_user_asked: bool = False
    image: str = ""
    image_platform: str = ""
    machine_platform: str = ""

    def to_json(self) -> bytes:
        """Return the plan for another process."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Plan:
        """Return the plan that to_json() wrote."""
        found = json.loads(content)
        return cls(**{**found, "argv": tuple(found["argv"])})


def plan_of(
    config: RunConfig,
    asked: Asked,
    *,
    terminal: str = "",
    image: str = "",
    image_platform: str = "",
    machine_platform: str = "",
) -> Plan:
    """Return the plan by docker's rules: `--entrypoint` drops the image's command, COMMAND replaces it.

    *terminal* is $TERM for a program with a terminal. Raises InvalidOption where nothing says which program.
    """
    entrypoint, command = config.entrypoint, config.cmd
    if asked.entrypoint is not None:
        entrypoint, command = ((asked.entrypoint,) if asked.entrypoint else ()), ()
    argv = (*entrypoint, *(asked.command or command))
    if not argv:
        raise InvalidOption(f"{image} names no program of its own; name one: regfs run {image} COMMAND")
    if not argv[0]:
        raise InvalidOption(f"the program of {image} has an empty name: leave COMMAND out, or name one")
    env = {"PATH": FALLBACK_PATH}
    if asked.has_terminal:
        env["TERM"] = terminal or "xterm"
    env.update((name, value) for name, _, value in (text.partition("=") for text in config.env) if name)
    env.update(asked.env)
    return Plan(
        argv=argv,
        env=env,
        directory=asked.directory or config.working_dir or "/",
        user=config.user if asked.user is None else asked.user,
        is_user_asked=asked.user is not None,
        image=image,
        image_platform=image_platform,
        machine_platform=machine_platform,
    )


def parse_volume(text: str, *, directory: str) -> Volume:
    """Parse `HOST:IMAGE[:ro]`; HOST is relative to *directory*, and may have colons. Raises InvalidOption."""
    rest, colon, mode = text.rpartition(":")
    if not colon or mode not in ("ro", "rw"):
        rest, mode = text, "rw"
    host, colon, image = rest.rpartition(":/")
    if not host or not colon or "\0" in text:
        raise InvalidOption(f"-v {text}: write HOST:IMAGE or HOST:IMAGE:ro, where IMAGE is an absolute path")
    place = normpath(f"/{image.lstrip('/')}")
    if place == "/":
        raise InvalidOption(f"-v {text}: nothing can be put in the place of the image's root directory")
    if place.split("/")[1] == "proc":
        raise InvalidOption(f"-v {text}: /proc of the program is its own; put it at another path of the image")
    return Volume(str(Path(directory, host)), f"/{image}", mode == "ro")


def parse_env(texts: Sequence[str], environment: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yield names and values of `NAME=VALUE`, and of `NAME` where *environment* has it. Raises InvalidOption."""
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or "\0" in text:
            raise InvalidOption(f"-e {text}: write NAME=VALUE, or NAME for the value that it has here")
        if equals:
            yield name, value
        elif name in environment:
            yield name, environment[name]


def parse_network(text: str) -> str:
    """Return *text* where it names a network. Raises InvalidOption."""
    if text not in NETWORKS:
        raise InvalidOption(f"--network {text}: there are {' and '.join(NETWORKS)}")
    return text
