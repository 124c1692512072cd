"""`regfs tags` and `regfs repos`: the tags of a repository, the repositories of a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

from regfs.app.composition import App, build
from regfs.app.config import Config, parse_registry
from regfs.mount.mountpoint import inside, mounts
from regfs.verbs.image_argument import read_reference
from regfs.waiting.deadline import Deadline, under


def tags(repository: str, *, config: Config, environment: Mapping[str, str]) -> list[str]:
    """Return the tags of *repository*, a name or a path in a mount. Blocks on the network; raises RegfsErrors."""
    mounted = mounts()
    is_path = inside(repository, {each.mountpoint for each in mounted if each.is_regfs}) is not None
    text = f"{repository.rstrip('/')}/latest" if is_path else repository  # in a mount, the tag is a directory below
    name = read_reference(text, config.default_registry, mounted).repository
    return _asked(lambda app: list(app.repositories.repository(name).tags.names()), config, environment)


def repositories(registry: str | None, *, config: Config, environment: Mapping[str, str]) -> list[str]:
    """Return the catalog of *registry*, by default the default one. Blocks on the network; raises RegfsErrors."""
    host = config.default_registry if registry is None else parse_registry(registry)
    return _asked(lambda app: app.registry.listing.repositories(host), config, environment)


def _asked(question: Callable[[App], list[str]], config: Config, environment: Mapping[str, str]) -> list[str]:
    with closing(build(config, environment)) as app, under(Deadline(config.timeout_s, is_users=True)):
        return question(app)
