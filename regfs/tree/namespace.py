"""A registry, a namespace or a repository: the names of one registry below one path.

    127.0.0.1:5000/                 a registry: its repositories' first components
    └── library/                    a namespace
        ├── debian/                 a repository: its tags, and repositories below it
        │   ├── 12/
        │   └── @/slim/             the repository library/debian/slim, should `slim` be a tag of library/debian too
        ├── debian:12/              a pasted reference opens, though it is not listed
        ├── debian@sha256:…/
    └── debian/.diff/12..13/    two images of a repository compared, see views/differences.py

When a name means a tag and when a repository: it is a tag if the path so far is a repository with that tag, else one
more component of a path. images/existence.py asks the registry whether that component leads to a repository; where the
registry cannot say, the name opens. Below `@` every name is a component, and none is asked for. On Docker Hub `debian/`
is both library/debian and the namespace debian, whose repositories are beside the tags. A name that is no tag and no
component by grammar does not exist, without a request; the same holds for names that programs try everywhere
(probed_names.py). Used by root.py. Any thread.
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
from regfs.tree import image
from regfs.tree.node import DIRECTORY_MODE, FOREVER, Child, Found, Node, children_of, directory_attributes
from regfs.tree.probed_names import is_probed
from regfs.tree.tag import TagDirectory, manifest_named, version_directory
from regfs.tree.views import differences
from regfs.waiting.deadline import Deadline, current, under

log = logging.getLogger(__name__)

ESCAPE = "@"
_VALID_S = 60.0
_DOUBT_VALID_S = 5.0
_CATALOG_TIMEOUT_S = 2.0


class Names(Protocol):
    """The parts that all these directories share."""

    @property
    def repositories(self) -> Repositories: ...

    @property
    def images(self) -> Images: ...


@dataclass(frozen=True, slots=True)
class Namespace:
    """The directory of *path* in *registry*; '' is the registry itself. *key* is its path in the mount.

    *doubt* is the refusal that the registry gave when asked for a tag of this name. Docker Hub and GHCR refuse what
    does not exist, so the name may still be a namespace or a repository; the refusal is raised for parts of an image.
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
        """Return the tag, the manifest or the next component that *name* is, asking the registry as far as needed.

        Raises NotFound, AccessDenied, and what a network brings.
        """
        if name == ESCAPE and not self.tags_hidden:
            return Found(replace(self, key=f"{self.key}/{ESCAPE}", tags_hidden=True), FOREVER)
        if self.doubt is not None and name in image.NAMES:
            raise AccessDenied(self.doubt)
        repository = None if self.tags_hidden else self._repository()
        if name == differences.NAME and repository is not None:
            return Found(self._comparisons(repository), FOREVER)
        if version := manifest_named(name):
            return self._manifest(name, version)
        if ":" in name or "@" in name:
            return self._reference(name)
        if not self.path and is_probed(name) and not self._is_known_below(name):
            raise NotFound(f"{name[:300]!r} is a name that programs try, and no repository that was seen")
        if repository is not None and is_tag(name):
            return self._tag_or_component(repository, name)
        return self._component(name)

    def locate(self, name: str) -> Node:
        """Return what a look-up of *name* found that was no tag. No registry is asked whether it still is."""
        if name == ESCAPE and not self.tags_hidden:
            return replace(self, key=f"{self.key}/{ESCAPE}", tags_hidden=True)
        repository = None if self.tags_hidden else self._repository()
        if name == differences.NAME and repository is not None:
            return self._comparisons(repository)
        if version := manifest_named(name):
            return self._manifest(name, version).node
        if ":" in name or "@" in name:
            return self._reference(name).node
        return Namespace(f"{self.key}/{name}", self.registry, _join(self.path, name), self.names)

    def locate_tag(self, name: str) -> TagDirectory:
        """Return the directory of the tag *name*, or of `repository:tag`. No registry is asked. Raises NotFound."""
        component, version = parse_version(name) if ":" in name else ("", Version(name))
        path = _join(self.path, component) if component else self.path
        repository = Namespace(self.key, self.registry, path, self.names)._repository()
        if repository is None or version.tag is None:
            raise NotFound(f"{self.key}/{name} is no tag")
        return TagDirectory(f"{self.key}/{name}", repository, version.tag, self.names.images)

    def children(self) -> list[Child]:
        """Return the tags, and the next components of known repositories; costs two requests at most, and pages.

        Raises NotFound where the registry has neither such a repository nor anything below it.
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
        """Return the tags, or the reason for none. With names below, that is no error: this is then a namespace."""
        repository = None if self.tags_hidden else self._repository()
        if repository is None:
            return (), None
        try:
            return repository.tags.names(), None
        except (NotFound, AccessDenied) as refusal:
            return (), refusal
        except UNREACHABLE as failure:
            if self.names.repositories.is_known(self.registry, repository.name.path):
                raise  # a repository: the failure of its tags is the answer
            return (), failure

    def _known_below(self) -> set[str]:
        return self.names.repositories.components_below(self.registry, self.path)

    def _ask_for_catalog(self, *, enough: bool) -> None:
        """Ask the registry for its repositories, unless they were asked for lately.

        Some registries cannot deliver a catalog in time, and it adds only names that open anyway: with *enough* to show
        without it, the wait is short. Raises the failure where nothing is known of the registry.
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
        """Return the repositories of a namespace of Docker Hub, where the user lets its API be asked."""
        hub = self.names.repositories.hub
        if hub is None or self.registry != DOCKER_HUB or not self.path or "/" in self.path:
            return ()
        return hub.repositories(self.path)

    def _below(self, repositories: Sequence[str]) -> set[str]:
        """Return the next components of those *repositories* that are below this path."""
        prefix = f"{self.path}/" if self.path else ""
        return {name[len(prefix) :].partition("/")[0] for name in repositories if name.startswith(prefix)}

    def _repository(self) -> Repository | None:
        """Return the repository that this may be; None for a registry and for Docker Hub's `library`."""
        if not self.path or (self.registry, self.path) == (DOCKER_HUB, OFFICIAL):
            return None
        return self.names.repositories.repository(repository_at(self.registry, self.path))

    def _comparisons(self, repository: Repository) -> differences.DiffDirectory:
        key = f"{self.key}/{differences.NAME}"
        return differences.DiffDirectory(key, repository, self.names.images, manifest_named)

    def _manifest(self, name: str, version: Version) -> Found:
        repository = self._repository()
        if repository is None:
            raise NotFound(f"{self.key or self.registry} is no repository, so it has no manifest {name}")
        return version_directory(f"{self.key}/{name}", repository, version, self.names.images)

    def _reference(self, name: str) -> Found:
        """Return what `repository:tag` or `repository@digest` below this path means, or `tag@time` in a repository."""
        component, version = parse_version(name)
        own = None if version.at is None or version.tag is not None or self.tags_hidden else self._repository()
        if own is not None and is_tag(component) and own.tags.past.is_known(component):
            return version_directory(f"{self.key}/{name}", own, version._replace(tag=component), self.names.images)
        if not is_repository_component(component):
            raise NotFound(f"{name[:300]!r} is no reference")
        below = Namespace(f"{self.key}/{component}", self.registry, _join(self.path, component), self.names)
        repository = below._repository()
        if repository is None:
            raise NotFound(f"{below.key} is a namespace; a repository is needed before a tag or a digest")
        return version_directory(f"{self.key}/{name}", repository, version, self.names.images)

    def _tag_or_component(self, repository: Repository, name: str) -> Found:
        if repository.tags.is_listed(name):  # look-ups after a listing of tags do not read the disk
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
            # Without a network, a name that has led to a repository before still does.
            if not self._is_known_below(name):
                raise
        return self._component(name, in_repository=doubt is None and self._is_there(repository), doubt=doubt)

    def _component(self, name: str, *, in_repository: bool = False, doubt: str | None = None) -> Found:
        """Return the directory of the next component. Raises NotFound where the registry says that nothing is there."""
        if not is_repository_component(name):
            raise InvalidName(f"{name[:300]!r} is neither a repository's component nor a tag")
        path = _join(self.path, name)
        verdict = self._verdict(path, in_repository=in_repository)
        if verdict is Verdict.MISSING and doubt is None:
            what = "neither a tag nor a repository" if in_repository else "no repository, and nothing below,"
            raise NotFound(f"{_join(self.registry, self.path)} has {what} {name[:300]!r}")
        is_sure = doubt is None and verdict in (Verdict.REPOSITORY, Verdict.NAMESPACE)
        # A tag of that name may be pushed at any time, and wins then; and a login may end the doubt.
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
        """Whether the registry lists the tags of *repository*: then it shows repositories below it as well."""
        try:
            return self.names.repositories.existence.said(repository.name) is Said.THERE
        except Offline:
            return False

    def _just_led_below(self, repository: Repository, name: str) -> bool:
        """Whether a tag of the repository *name* was resolved a moment ago: then *name* was no tag."""
        if not is_repository_component(name) or repository.tags.was_just_visited():
            return False
        below = self.names.repositories.repository(RepositoryName(self.registry, _join(self.path, name)))
        return below.tags.was_just_visited()

    def _is_listed_below(self, repository: Repository, name: str) -> bool:
        """Whether *name* is known to lead below and to be no tag of *repository*: no request is needed then."""
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
