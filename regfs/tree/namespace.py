"""The directory of a registry, a namespace or a repository: the names of one registry below one path.

    127.0.0.1:5000/                 a registry: its repositories' first components
    └── library/                    a namespace
        ├── debian/                 a repository: its tags, and repositories below it
        │   ├── 12/
        │   └── @/slim/             the repository library/debian/slim, needed if `slim` is also a tag
        ├── debian:12/              a pasted reference; opens, is not listed
        ├── debian@sha256:…/
    └── debian/.diff/12..13/    two images of a repository compared, see views/diff.py

A name is a tag if the path so far is a repository with that tag, else one more component of a path.
images/answers/existence.py asks the registry whether that component leads to a repository; if the registry cannot tell,
the name opens. Below `@` every name is a component, and the registry is not asked for tags. On Docker Hub `debian/` is
both library/debian and the namespace debian, whose repositories are beside the tags. No request is made for a name that
by grammar is neither a tag nor a component, nor for names that programs try everywhere (probed_names.py): these do not
exist. Used by root.py. Any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from regfs.errors import (
    AccessDenied,
    InvalidName,
    NotFound,
    Offline,
    RegfsError,
    RegistryTimeout,
)
from regfs.images.answers.existence import Said, Verdict
from regfs.images.answers.remembered import UNREACHABLE
from regfs.images.pinned_images import Images
from regfs.images.repositories import Repositories
from regfs.images.repository import Repository
from regfs.model.attributes import Attributes
from regfs.model.names import (
    DOCKER_HUB,
    OFFICIAL,
    RepositoryName,
    Version,
    is_repository_component,
    is_tag,
    parse_version,
    repository_at,
)
from regfs.process.waiting.deadline import Deadline, current, under
from regfs.tree import image
from regfs.tree.node import DIRECTORY_MODE, FOREVER, Child, Found, Node, children_of, directory_attributes
from regfs.tree.probed_names import is_probed
from regfs.tree.tag import TagDirectory, manifest_named, version_directory
from regfs.tree.views import diff

log = logging.getLogger(__name__)

ESCAPE = "@"
_VALID_S = 60.0
_DOUBT_VALID_S = 5.0
_CATALOG_TIMEOUT_S = 2.0


class Names(Protocol):
    """What all directories of names share."""

    @property
    def repositories(self) -> Repositories: ...

    @property
    def images(self) -> Images: ...


@dataclass(frozen=True, slots=True)
class Namespace:
    """The directory of *path* in *registry*; *path* '' is the registry itself. *key* is its path in the mount.

    *doubt* is the registry's refusal when it was asked for a tag of this name. Docker Hub and GHCR refuse what does not
    exist, so the name may still be a namespace or a repository. The refusal is raised if a part of an image is looked
    up here.
    """

    key: str
    registry: str
    path: str
    names: Names
    tags_hidden: bool = False
    doubt: str | None = None

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def lookup(self, name: str) -> Found:
        """Return the tag, manifest or next component that *name* means; asks the registry as far as needed.

        Blocks on the network. Raises NotFound, AccessDenied, and the errors of the network.
        """
        if name == ESCAPE and not self.tags_hidden:
            return Found(replace(self, key=f"{self.key}/{ESCAPE}", tags_hidden=True), FOREVER)
        if self.doubt is not None and name in image.NAMES:
            raise AccessDenied(self.doubt)
        repository = None if self.tags_hidden else self._repository()
        if name == diff.NAME and repository is not None:
            return Found(self._comparisons(repository), FOREVER)
        if version := manifest_named(name):
            return self._manifest(name, version)
        if ":" in name or "@" in name:
            return self._reference(name)
        if not self.path and is_probed(name) and not self._is_known_below(name):
            raise NotFound(f"{name[:300]!r} is a name that programs try everywhere, and not a known repository")
        if repository is not None and is_tag(name):
            return self._tag_or_component(repository, name)
        return self._component(name)

    def locate(self, name: str) -> Node:
        """Return the node that an earlier look-up of *name* found, if it was not a tag. No request is made."""
        if name == ESCAPE and not self.tags_hidden:
            return replace(self, key=f"{self.key}/{ESCAPE}", tags_hidden=True)
        repository = None if self.tags_hidden else self._repository()
        if name == diff.NAME and repository is not None:
            return self._comparisons(repository)
        if version := manifest_named(name):
            return self._manifest(name, version).node
        if ":" in name or "@" in name:
            return self._reference(name).node
        return Namespace(f"{self.key}/{name}", self.registry, _join(self.path, name), self.names)

    def locate_tag(self, name: str) -> TagDirectory:
        """Return the directory of the tag *name*, or of `repository:tag`. No request is made. Raises NotFound."""
        component, version = parse_version(name) if ":" in name else ("", Version(name))
        path = _join(self.path, component) if component else self.path
        repository = Namespace(self.key, self.registry, path, self.names)._repository()
        if repository is None or version.tag is None:
            raise NotFound(f"{self.key}/{name} is not a tag")
        return TagDirectory(f"{self.key}/{name}", repository, version.tag, self.names.images)

    def children(self) -> list[Child]:
        """Return the tags, and the next components of known repositories.

        Blocks on the network for at most two requests, and their further pages. Raises NotFound if the registry has
        neither such a repository nor anything below it.
        """
        tags, refusal = self._tags()
        self._ask_for_catalog(enough=bool(tags))
        below = self._known_below() | self._below(self._listed_by_the_hub())
        if refusal is not None and not below:
            raise refusal
        self.names.repositories.existence.shown(self.registry, self.path, refusal)
        return children_of(self.key, dict.fromkeys(sorted({*tags, *below}), DIRECTORY_MODE))

    def known_children(self) -> list[Child]:
        """Return the components of known repositories; no network."""
        return children_of(self.key, dict.fromkeys(sorted(self._known_below()), DIRECTORY_MODE))

    def _tags(self) -> tuple[tuple[str, ...], RegfsError | None]:
        """Return the tags, or the error. With names below, this is a namespace, and the error does not matter."""
        repository = None if self.tags_hidden else self._repository()
        if repository is None:
            return (), None
        try:
            return repository.tags.names(), None
        except (NotFound, AccessDenied) as refusal:
            return (), refusal
        except UNREACHABLE as failure:
            if self.names.repositories.is_known(self.registry, repository.name.path):
                raise  # a repository: the failure to list its tags is raised
            return (), failure

    def _known_below(self) -> set[str]:
        return self.names.repositories.components_below(self.registry, self.path)

    def _ask_for_catalog(self, *, enough: bool) -> None:
        """Ask the registry for its repositories, unless they were asked for lately.

        Some registries cannot deliver a catalog in time, and it adds only names that open anyway. So if there is
        *enough* to show without it, the wait is short. Raises the failure if nothing is known of the registry.
        """
        deadline = current()
        if enough and deadline.may_wait:
            deadline = Deadline(_CATALOG_TIMEOUT_S)
        try:
            with under(deadline):
                self.names.repositories.ask_for_catalog(self.registry)
        except UNREACHABLE as failure:
            if isinstance(failure, RegistryTimeout):
                self.names.repositories.existence.no_catalog(self.registry)
            if not enough and not self.names.repositories.leads_to_known(self.registry, ""):
                raise

    def _listed_by_the_hub(self) -> Sequence[str]:
        """Return the repositories of a namespace of Docker Hub, from its API if the user allows that."""
        hub = self.names.repositories.hub
        if hub is None or self.registry != DOCKER_HUB or not self.path or "/" in self.path:
            return ()
        return hub.repositories(self.path)

    def _below(self, repositories: Sequence[str]) -> set[str]:
        """Return the next components of those *repositories* that are below this path."""
        prefix = f"{self.path}/" if self.path else ""
        return {name[len(prefix) :].partition("/")[0] for name in repositories if name.startswith(prefix)}

    def _repository(self) -> Repository | None:
        """Return the repository that this path may be; None for a registry and for Docker Hub's `library`."""
        if not self.path or (self.registry, self.path) == (DOCKER_HUB, OFFICIAL):
            return None
        return self.names.repositories.repository(repository_at(self.registry, self.path))

    def _comparisons(self, repository: Repository) -> diff.DiffDirectory:
        key = f"{self.key}/{diff.NAME}"
        return diff.DiffDirectory(key, repository, self.names.images, manifest_named)

    def _manifest(self, name: str, version: Version) -> Found:
        repository = self._repository()
        if repository is None:
            raise NotFound(f"{self.key or self.registry} is not a repository, so it has no manifest {name}")
        return version_directory(f"{self.key}/{name}", repository, version, self.names.images)

    def _reference(self, name: str) -> Found:
        """Return the directory of `repository:tag`, `repository@digest` or, in a repository, `tag@time`."""
        component, version = parse_version(name)
        own = None if version.at is None or version.tag is not None or self.tags_hidden else self._repository()
        if own is not None and is_tag(component) and own.tags.past.is_known(component):
            return version_directory(f"{self.key}/{name}", own, version._replace(tag=component), self.names.images)
        if not is_repository_component(component):
            raise NotFound(f"{name[:300]!r} is not a reference")
        below = Namespace(f"{self.key}/{component}", self.registry, _join(self.path, component), self.names)
        repository = below._repository()
        if repository is None:
            raise NotFound(f"{below.key} is a namespace; a repository is needed before a tag or a digest")
        return version_directory(f"{self.key}/{name}", repository, version, self.names.images)

    def _tag_or_component(self, repository: Repository, name: str) -> Found:
        if repository.tags.is_listed(name):  # look-ups after a listing of tags need not read the disk
            return version_directory(f"{self.key}/{name}", repository, Version(name), self.names.images)
        no_repository = self.names.repositories.existence.is_no_repository(repository.name)
        if no_repository or self._just_led_below(repository, name) or self._is_listed_below(repository, name):
            return self._component(name)
        doubt = None
        try:
            return version_directory(f"{self.key}/{name}", repository, Version(name), self.names.images)
        except NotFound:
            if not is_repository_component(name):
                raise
            self.names.repositories.existence.answered(self.registry)
        except AccessDenied as refusal:
            if not is_repository_component(name):
                raise
            doubt = str(refusal)
        except UNREACHABLE:
            # Without a network, a name that led to a repository before still opens.
            if not self._is_known_below(name):
                raise
        return self._component(name, in_repository=doubt is None and self._is_there(repository), doubt=doubt)

    def _component(self, name: str, *, in_repository: bool = False, doubt: str | None = None) -> Found:
        """Return the directory of the next component. Raises NotFound if the registry says that there is none."""
        if not is_repository_component(name):
            raise InvalidName(f"{name[:300]!r} is neither a repository's component nor a tag")
        path = _join(self.path, name)
        verdict = self._verdict(path, in_repository=in_repository)
        if verdict is Verdict.MISSING and doubt is None:
            what = "neither a tag nor a repository" if in_repository else "no repository, and nothing below,"
            raise NotFound(f"{_join(self.registry, self.path)} has {what} {name[:300]!r}")
        is_sure = doubt is None and verdict in (Verdict.REPOSITORY, Verdict.NAMESPACE)
        # A tag of that name may be pushed at any time and then has precedence; a login may end the doubt.
        valid_s = min(_VALID_S if is_sure else _DOUBT_VALID_S, self.names.repositories.tag_ttl_s)
        return Found(Namespace(f"{self.key}/{name}", self.registry, path, self.names, doubt=doubt), valid_s)

    def _verdict(self, path: str, *, in_repository: bool) -> Verdict:
        if self.tags_hidden:
            return Verdict.UNSAID
        hub = self.names.repositories.hub
        if hub is not None and self.registry == DOCKER_HUB and hub.has_listed(path):
            return Verdict.REPOSITORY
        return self.names.repositories.existence.of(self.registry, path, in_repository=in_repository)

    def _is_there(self, repository: Repository) -> bool:
        """Whether the registry lists the tags of *repository*. If so, it would also show repositories below it."""
        try:
            return self.names.repositories.existence.said(repository.name) is Said.THERE
        except Offline:
            return False

    def _just_led_below(self, repository: Repository, name: str) -> bool:
        """Whether a tag of the repository *name* was resolved a moment ago. If so, *name* is not a tag."""
        if not is_repository_component(name) or repository.tags.was_just_visited():
            return False
        below = self.names.repositories.repository(RepositoryName(self.registry, _join(self.path, name)))
        return below.tags.was_just_visited()

    def _is_listed_below(self, repository: Repository, name: str) -> bool:
        """Whether *name* is known to lead below and not to be a tag of *repository*; then no request is needed."""
        is_tag = repository.tags.is_listed(name)
        if is_tag is None:
            is_tag = not self.names.repositories.existence.has_no_list(repository.name)
        return not is_tag and self._is_known_below(name)

    def _is_known_below(self, name: str) -> bool:
        hub = self.names.repositories.hub
        if hub is not None and self.registry == DOCKER_HUB and hub.has_listed(_join(self.path, name)):
            return True
        return self.names.repositories.leads_to_known(self.registry, _join(self.path, name))


def _join(path: str, component: str) -> str:
    return f"{path}/{component}" if path else component
