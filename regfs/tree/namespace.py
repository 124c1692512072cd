"""A registry, a namespace or a repository: the names of one registry below one path.

    127.0.0.1:5000/                 a registry: its repositories' first components
    └── library/                    a namespace
        ├── debian/                 a repository: its tags, and repositories below it
        │   ├── 12/
        │   └── @/slim/             the repository library/debian/slim, should `slim` be a tag of library/debian too
        ├── debian:12/              a pasted reference opens, though it is not listed
        └── debian@sha256:…/

Registries do not tell namespaces from repositories, and most cannot be listed, so a name is whatever it turns out to
be when it is used: a tag if the repository so far has that tag, else a further component. Names that neither grammar
allows do not exist, and no request is made for them. Any thread.
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
    RegfsError,
)
from regfs.images.answers import UNREACHABLE
from regfs.images.image import Images
from regfs.images.repositories import Repositories
from regfs.images.repository import Repository
from regfs.model.attributes import Attributes
from regfs.model.digest import Digest
from regfs.model.names import DOCKER_HUB, RepositoryName, is_repository_component, is_tag
from regfs.patience import Patience, current, patient
from regfs.tree import image
from regfs.tree.node import DIRECTORY_MODE, FOREVER, Child, Found, children_of, directory_attributes
from regfs.tree.repository import TagDirectory, manifest_directory, parse_digest

log = logging.getLogger(__name__)

ESCAPE = "@"
_VALID_S = 60.0
_DOUBT_VALID_S = 5.0
_CATALOG_TIMEOUT_S = 2.0


class Names(Protocol):
    """What the directories of names share."""

    @property
    def repositories(self) -> Repositories: ...

    @property
    def images(self) -> Images: ...


@dataclass(frozen=True, slots=True)
class Namespace:
    """The directory of *path* in *registry*; '' is the registry itself. *key* is where it is in the tree.

    *doubt* is the refusal that was met when it was asked whether this is a tag: the name may still be a namespace or
    a repository (Docker Hub and GHCR refuse what does not exist), so the refusal counts only once nothing else is.
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
        """Return the tag, the manifest or the further component that *name* is, asking whether it is a tag.

        Raises NotFound, AccessDenied, and what a network brings.
        """
        if name == ESCAPE and self.path and not self.tags_hidden:
            return Found(replace(self, key=f"{self.key}/{ESCAPE}", tags_hidden=True), FOREVER)
        if self.doubt is not None and name in image.NAMES:
            raise AccessDenied(self.doubt)
        repository = None if self.tags_hidden else self._repository()
        if digest := parse_digest(name):
            return self._manifest(name, digest)
        if ":" in name or "@" in name:
            return self._reference(name)
        if repository is not None and is_tag(name):
            return self._tag_or_component(repository, name)
        return self._component(name)

    def children(self) -> list[Child]:
        """Return tags and the components of known repositories: two answers of the registry, however many there are.

        Raises NotFound where the registry has neither such a repository nor anything below it.
        """
        tags, refusal = self._tags()
        self._ask_for_catalog(enough=bool(tags))
        below = self._known_below() | self._below(self._listed_by_the_hub())
        if refusal is not None and not below:
            raise refusal
        return children_of(self.key, dict.fromkeys(sorted({*tags, *below}), DIRECTORY_MODE))

    def known_children(self) -> list[Child]:
        """Return the components of known repositories; no network."""
        return children_of(self.key, dict.fromkeys(sorted(self._known_below()), DIRECTORY_MODE))

    def _tags(self) -> tuple[tuple[str, ...], RegfsError | None]:
        """Return the tags, or why there are none: which says little where names below show that this is a namespace."""
        repository = None if self.tags_hidden else self._repository()
        if repository is None:
            return (), None
        try:
            return repository.tags(), None
        except (NotFound, AccessDenied) as refusal:
            return (), refusal
        except UNREACHABLE as failure:
            if self.names.repositories.is_known(self.registry, self.path):
                raise  # its tags are what was asked for
            return (), failure

    def _known_below(self) -> set[str]:
        return self.names.repositories.components_below(self.registry, self.path)

    def _ask_for_catalog(self, *, enough: bool) -> None:
        """Let the repositories that the registry lists be known.

        A catalog is more than some registries can manage, and adds only names that open anyway: with *enough* to show
        without it, it is not waited for long. Raises what it failed with where nothing is known.
        """
        patience = current()
        if enough and patience.may_wait:
            patience = Patience(_CATALOG_TIMEOUT_S)
        try:
            with patient(patience):
                self.names.repositories.ask_for_catalog(self.registry)
        except UNREACHABLE:
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
        """Return the repository that this may be; None for a registry and for the Hub's namespaces."""
        if not self.path or (self.registry == DOCKER_HUB and "/" not in self.path):
            return None
        return self.names.repositories.repository(RepositoryName(self.registry, self.path))

    def _manifest(self, name: str, digest: Digest) -> Found:
        repository = self._repository()
        if repository is None:
            raise NotFound(f"{self.key} is no repository, so it has no manifest {name}")
        return manifest_directory(f"{self.key}/{name}", repository, digest, self.names.images)

    def _reference(self, name: str) -> Found:
        """Return what `repository:tag` or `repository@digest` below this path means."""
        component, at, digest_text = name.partition("@")
        component, colon, tag = component.partition(":")
        if not is_repository_component(component) or (colon and not is_tag(tag)):
            raise NotFound(f"{name[:300]!r} is no reference")
        below = Namespace(f"{self.key}/{component}", self.registry, _join(self.path, component), self.names)
        repository = below._repository()
        if repository is None:
            raise NotFound(f"{below.key} is a namespace; a repository is needed before a tag or a digest")
        if at:
            digest = parse_digest(digest_text)
            if digest is None:
                raise NotFound(f"{digest_text[:300]!r} is no digest")
            return manifest_directory(f"{self.key}/{name}", repository, digest, self.names.images)
        return self._tag(repository, tag, key=f"{self.key}/{name}")

    def _tag(self, repository: Repository, tag: str, *, key: str) -> Found:
        """Return the directory of *tag*. A listing that names it is proof enough; else the registry is asked."""
        return Found(TagDirectory(key, repository, tag, self.names.images), repository.tag_valid_s(tag))

    def _tag_or_component(self, repository: Repository, name: str) -> Found:
        if self._just_led_below(repository, name):
            return self._component(name)
        doubt = None
        try:
            return self._tag(repository, name, key=f"{self.key}/{name}")
        except NotFound:
            if not is_repository_component(name):
                raise
        except AccessDenied as refusal:
            if not is_repository_component(name):
                raise
            doubt = str(refusal)
        except UNREACHABLE:
            # What was seen to lead to a repository does so without a network too.
            if not self._is_known_below(name):
                raise
            return self._component(name)
        # Where the repository is there and has no such tag, only a repository below makes the name a directory.
        if doubt is None and repository.exists() and not self._has_below(name):
            raise NotFound(f"{repository.name} has neither a tag nor a repository {name[:300]!r}")
        return self._component(name, doubt=doubt)

    def _component(self, name: str, *, doubt: str | None = None) -> Found:
        if not is_repository_component(name):
            raise InvalidName(f"{name[:300]!r} is neither a repository's component nor a tag")
        below = Namespace(f"{self.key}/{name}", self.registry, _join(self.path, name), self.names, doubt=doubt)
        # A tag of that name may be pushed at any time, and would win; and after a login there is no doubt.
        return Found(below, min(_VALID_S if doubt is None else _DOUBT_VALID_S, self.names.repositories.tag_ttl_s))

    def _just_led_below(self, repository: Repository, name: str) -> bool:
        """Tell whether somebody came through here to the repository *name* a moment ago: then no tag was in the way."""
        if not is_repository_component(name) or repository.was_just_visited():
            return False
        below = self.names.repositories.repository(RepositoryName(self.registry, _join(self.path, name)))
        return below.was_just_visited()

    def _has_below(self, name: str) -> bool:
        """Tell whether *name* is a repository or leads to one: known, there when asked, or in the catalog."""
        if self._is_known_below(name):
            return True
        if self.registry != DOCKER_HUB and self._is_repository(_join(self.path, name)):
            return True
        self._ask_for_catalog(enough=True)
        return self._is_known_below(name)

    def _is_known_below(self, name: str) -> bool:
        return self.names.repositories.leads_to_known(self.registry, _join(self.path, name))

    def _is_repository(self, path: str) -> bool:
        """Tell whether the registry shows that repository. Many refuse what does not exist: that is no."""
        try:
            return self.names.repositories.repository(RepositoryName(self.registry, path)).exists()
        except AccessDenied:
            return False


def _join(path: str, component: str) -> str:
    return f"{path}/{component}" if path else component
