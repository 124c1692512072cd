"""`regfs tags` and `regfs repos`: the tags of a repository, the repositories of a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from regfs.app.composition import App, build
from regfs.app.config import Config, parse_registry
from regfs.model.names import registry_named
from regfs.mount.mountpoint import Mounted, inside, mounts
from regfs.process.waiting.deadline import Deadline, under
from regfs.tree.namespace import ESCAPE
from regfs.verbs.image_argument import read_reference


def tags(repository: str, *, config: Config, environment: Mapping[str, str]) -> list[str]:
    """Return the tags of *repository*, a name or a path in a mount. Blocks on the network; raises RegfsErrors."""
    mounted = mounts()
    is_path = inside(repository, {each.mountpoint for each in mounted if each.is_regfs}) is not None
    text = f"{repository.rstrip('/')}/latest" if is_path else repository  # in a mount, the tag is a directory below
    name = read_reference(text, config.default_registry, mounted).repository
    return _asked(lambda app: list(app.repositories.repository(name).tags.names()), config, environment)


class Catalog(NamedTuple):
    """The *repositories* of a *registry*."""

    registry: str
    repositories: list[str]


def repositories(text: str | None, *, config: Config, environment: Mapping[str, str]) -> Catalog:
    """Return the catalog of a registry, by default the default one; *text* is its name or a path in a mount.

    For a path below a registry these are the repositories below it. Blocks on the network; raises RegfsErrors.
    """
    host, below = (config.default_registry, "") if text is None else read_registry(text, mounts())
    found = _asked(lambda app: app.registry.listing.repositories(host), config, environment)
    return Catalog(host, [name for name in found if name.startswith(below)])


def read_registry(text: str, mounted: Sequence[Mounted]) -> tuple[str, str]:
    """Return the registry that *text* names, and what the names of its repositories begin with. Raises InvalidName."""
    points = {each.mountpoint: each for each in mounted if each.is_regfs and not each.image}
    within = inside(text, points)
    if within is None:
        return parse_registry(text), ""
    first, *rest = [name for name in within.path.split("/") if name != ESCAPE] or [""]
    named = registry_named(first)
    source = points[within.mountpoint].source
    return named or source, "".join(f"{name}/" for name in (rest if named else [first, *rest]) if name)


def _asked(question: Callable[[App], list[str]], config: Config, environment: Mapping[str, str]) -> list[str]:
    with closing(build(config, environment)) as app, under(Deadline(config.timeout_s, is_users=True)):
        return question(app)
