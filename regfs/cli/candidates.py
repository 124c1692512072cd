"""What the word that is being typed may become: verbs, options, and the images and paths that the cache knows.

    regfs ins▮                      verbs, and directories, which the shell adds
    regfs mount --pla▮              options of the verb
    regfs cat ghcr.io/org/▮         repositories and tags that were seen before
    regfs cat debian:12:/etc/▮      files of an image that is in the cache
    regfs umount ▮                  mount points that the user may unmount

No registry is asked: a key press must not wait for a network. What the disk does not tell gives no candidates. Used by
the verb `complete`, which the scripts of `regfs completion` run. One thread; blocks on the disk alone.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence

from regfs.cli.arguments import Parser, mount_parser
from regfs.cli.settings import configured
from regfs.cli.verbs import VERBS, load_verb, verb_named
from regfs.errors import RegfsError
from regfs.mount.mountpoint import mounts

_TAKE_IMAGES = frozenset({"IMAGE", "IMAGE[:/PATH]", "IMAGE:/PATH", "ARTIFACT[:/PATH]", "REPOSITORY", "IMAGE [PATH…]"})
_MOST = 1000


def candidates(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return what the last of *words* may become. *words* is what follows `regfs` on the line, and is not empty.

    A candidate that ends in `/` or `:` may be typed on. At most a thousand.
    """
    *before, current = words
    found = sorted({each for each in _candidates(before, current, environment) if each.startswith(current)})
    return found[:_MOST]


def _candidates(before: Sequence[str], current: str, environment: Mapping[str, str]) -> Iterator[str]:
    verb = verb_named(before[0]) if before else None
    parser = mount_parser() if verb is None else load_verb(verb).parser()
    if before and (choices := _values(parser, before[-1])) is not None:
        yield from choices
    elif current.startswith("-"):
        yield from (text for action in parser._actions for text in action.option_strings if action.help is not None)
    elif not before:
        yield from (f"{name} " for name, shown in VERBS.items() if shown.summary)
    elif verb == "help":
        yield from VERBS
    elif verb == "cache" and len(before) == 1:
        yield from VERBS["cache"].usage.split("|")
    elif verb == "completion":
        yield from ("bash", "fish", "zsh")
    elif verb is not None and any(action.metavar == "MOUNTPOINT" for action in parser._actions):
        yield from _mount_points()
    elif any(action.metavar in _TAKE_IMAGES for action in parser._actions):
        yield from _images(current, environment)


def _values(parser: Parser, word: str) -> list[str] | None:
    """Return the values that the option *word* can have; None where it takes none, [] where they cannot be listed."""
    for action in parser._actions:
        if word in action.option_strings and action.nargs != 0:
            takes = not isinstance(action, argparse._StoreConstAction | argparse._AppendConstAction)
            metavar = action.metavar if isinstance(action.metavar, str) else ""
            if not takes:
                return None
            return metavar.split("|") if "|" in metavar else [*(action.choices or ())]
    return None


def _mount_points() -> Iterator[str]:
    """Yield the mount points of this user's mounts, for root all; leave out paths with a space, which shells split."""
    for each in mounts():
        is_ours = os.geteuid() == 0 or each.user_id == os.geteuid()
        if is_ours and (each.is_regfs or each.is_kernel_mount) and not re.search(r"\s", each.mountpoint):
            yield f"{each.mountpoint} "


def _images(current: str, environment: Mapping[str, str]) -> Iterator[str]:
    from regfs.library.client import Client
    from regfs.library.path import Path

    config = configured(environment)
    options = {"default_registry": config.default_registry, "cache_dir": config.cache_dir, "environment": environment}
    try:
        with Client(offline=True, timeout_s=1.0, **options) as client:  # type: ignore[arg-type]
            image, colon, path = current.partition(":/")
            if colon:
                directory, slash, _ = f"/{path}".rpartition("/")
                for each in (client.open(image).contents / directory).iterdir():
                    end = "/" if each.is_dir() else " "
                    yield f"{image}:{directory}{slash}{each.name}{end}"
                return
            head, slash, last = current.rpartition("/")
            repository, colon, _ = last.partition(":")
            places: list[tuple[str, Path]] = [(f"{head}{slash}", client.path(head))]
            if not slash:
                places.append(("", client.path("library")))
            if colon:
                tags = client.path(f"{head}{slash}{repository}" if slash else f"library/{repository}")
                places = [(f"{head}{slash}{repository}:", tags)]
            for prefix, place in places:
                yield from (f"{prefix}{name}" for name in _names(place))
    except (RegfsError, OSError):
        return


def _names(place: object) -> Iterator[str]:
    from regfs.library.path import Path

    assert isinstance(place, Path)
    try:
        yield from (each.name for each in place.iterdir() if each.name != ".regfs")
    except (RegfsError, OSError):
        return
