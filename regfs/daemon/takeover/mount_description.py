"""The options and the mount point of a mount, as JSON in its state. The next daemon reads it, perhaps a later release.

A field that this release does not know is ignored; a field that an older release did not have keeps its default.
Used by serve.py and successor.py. Pure; any thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from regfs.app.config import Config
from regfs.errors import MountFailure
from regfs.model.platform import Platform, parse_platform
from regfs.mount.mountpoint import OwnMount


@dataclass(frozen=True, slots=True)
class MountDescription:
    """The options, and the mount that was made with them."""

    config: Config
    mount: OwnMount


def description_as_text(description: MountDescription) -> str:
    """Return *asked* as JSON."""
    config = {field.name: _plain(getattr(description.config, field.name)) for field in fields(Config)}
    return json.dumps({"config": config, "path": description.mount.path, "device": description.mount.device})


def parse_description(text: str) -> MountDescription:
    """Return what description_as_text() wrote as *text*. Raises MountFailure where it cannot be read."""
    try:
        return _parsed(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MountFailure(f"this release does not know an option of the mount: {error!r}") from error


def _parsed(said: dict[str, Any]) -> MountDescription:
    defaults = Config()
    known = {field.name for field in fields(Config)}
    values: dict[str, Any] = {
        name: _value(value, getattr(defaults, name)) for name, value in said["config"].items() if name in known
    }
    config = Config(**values)
    return MountDescription(config, OwnMount(said["path"], said["device"]))


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, Platform):
        return {"platform": str(value)}
    if isinstance(value, frozenset):
        return {"set": sorted(value)}
    return value


def _value(plain: object, default: object) -> object:
    if isinstance(default, tuple) and isinstance(plain, list):  # a NamedTuple, which JSON has as a list
        return type(default)(*plain)
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    if kind == "path":
        return Path(value)
    return parse_platform(value) if kind == "platform" else frozenset(value)
