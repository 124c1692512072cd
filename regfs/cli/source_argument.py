"""SOURCE and MOUNTPOINT of `regfs [SOURCE] MOUNTPOINT`: an image, swapped words or a missing one get a clear message.

Docker's rule decides what a registry is; --default-registry names one that looks like an image. Used by main.py and
command_config.py. Only asks the disk whether a directory of that name exists.
"""

from __future__ import annotations

import os

from regfs.errors import InvalidOption
from regfs.model.names import FIRST_PORT_OF_REGISTRIES, ONE_IMAGE, is_registry
from regfs.model.userinfo import reference_without_userinfo


def refuse_missing_mountpoint(word: str) -> None:
    """Raise InvalidOption where *word*, the only one given, is a registry or an image and not an existing directory."""
    if not (is_source(word) or _is_image(word)) or _is_there(word):
        return
    remedy = f"regfs {word} DIR" if is_source(word) else f"regfs DIR, then look into DIR/{word}"
    raise InvalidOption(f"MOUNTPOINT is missing: {remedy} (for a mount point of that name: mkdir {word})")


def registry_of_source(source: str, mountpoint: str) -> str:
    """Return what SOURCE names as a registry, without `https://`. Raises InvalidOption, with the remedy."""
    name = source.removeprefix("https://").rstrip("/")
    if is_source(name):
        return name
    if source.startswith("http://"):
        raise InvalidOption(f"SOURCE {source!r}: leave out http://; --insecure-registry HOST allows plain http")
    if (shown := reference_without_userinfo(source)) is not None:
        raise InvalidOption(f"SOURCE {shown!r}: leave out the user name and the password; podman login stores them")
    if not name or name.startswith((".", "/", "~")):
        raise InvalidOption(f"SOURCE {source!r} is not a registry; did you swap SOURCE and MOUNTPOINT?")
    registry = f"; for a registry of that name: --default-registry {name}" if "/" not in name else ""
    raise InvalidOption(
        f"{name} is an image: mount a registry (regfs {mountpoint}), then look into "
        f"{os.path.join(mountpoint, name)}, or mount its files alone (regfs mount {name} {mountpoint}){registry}"
    )


def image_of_source(source: str) -> str | None:
    """Return IMAGE where *source* is `regfs#IMAGE`, one image to be mounted; else None."""
    return source.removeprefix(ONE_IMAGE) if source.startswith(ONE_IMAGE) else None


def is_source(name: str) -> bool:
    """Tell whether *name* is surely a registry: a host with a dot, a high port or capitals, or localhost."""
    host, _, port = name.rpartition(":")
    is_short = port.isdecimal() and not any(mark in host for mark in ".[") and host != "localhost"
    return is_registry(name) and not (is_short and int(port) < FIRST_PORT_OF_REGISTRIES)


def _is_image(word: str) -> bool:
    """Tell whether *word* looks like an image, not a directory: it begins with a registry, or has a tag or digest."""
    first, slash, rest = word.partition("/")
    if not first or first in (".", ".."):
        return False
    return ":" in word.rpartition("/")[2] or bool(slash and rest and is_registry(first))


def _is_there(path: str) -> bool:
    """Tell whether *path* exists, by listing its parent: a dead mount on it counts, and a hanging one is not asked."""
    parent, name = os.path.split(path.rstrip("/"))
    try:
        return name in os.listdir(parent or ".")
    except OSError:
        return False
