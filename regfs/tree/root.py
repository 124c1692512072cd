"""The root directory of a mount: registries, and beside them the names of the default registry.

    /
    ├── .regfs/                  see control.py
    ├── docker.io/  ghcr.io/  localhost:5000/
    ├── library/                 a namespace of the default registry
    └── debian/ debian:12/ …     a repository of it, a pasted reference; both open, but are not listed

A first component is a registry if Docker's rule takes it for a host. Docker sees the whole reference: in
`registry:5000/app` that is a host, in `debian:12` it is a tag. The kernel looks up single names, so that `name:number`
without a dot is

    a registry    if the user named it (the default, --insecure-registry) or visited it
    a tag         if the number is below 1024: no registry in a local network uses such a port
    a tag         if the default registry has it; else a registry

Used by tree.py. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regfs.errors import Interrupted, NotFound, RegfsError, WouldBlock
from regfs.images.pinned_images import Images
from regfs.images.repositories import Repositories
from regfs.model.attributes import Attributes
from regfs.model.digest import Digest
from regfs.model.names import DOCKER_HUB, FIRST_PORT_OF_REGISTRIES, OFFICIAL, is_registry, registry_named
from regfs.process.waiting.deadline import Deadline, current, under
from regfs.tree.control import ControlDirectory
from regfs.tree.namespace import Namespace
from regfs.tree.node import DIRECTORY_MODE, FOREVER, Child, Directory, Found, Node, directory_attributes
from regfs.tree.probed_names import is_bare_word, is_probed

CONTROL = ".regfs"
_ROOT_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Root:
    """The root directory. *named*: the registries that the user's options name beside the default one.

    *note* is called with what helps a user who pastes a name of Docker Hub below another default registry.
    """

    default_registry: str
    control: ControlDirectory
    repositories: Repositories
    images: Images
    named: frozenset[str] = frozenset()
    key: str = "/"
    note: Callable[[str], None] = lambda _text: None

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def lookup(self, name: str) -> Found:
        """Return a registry, a name of the default registry, or `.regfs`. No request is made for a registry's name."""
        if name == CONTROL:
            return Found(self.control, FOREVER)
        registry = registry_named(name)
        if registry is None:
            return self._by_default(name)
        if is_probed(name) or (is_bare_word(name) and not self._is_known(registry)):
            raise NotFound(f"{name!r} is a name that programs try everywhere, not a registry")
        return self._tag(name, registry) or Found(Namespace(name, registry, "", self), FOREVER)

    def children(self) -> list[Child]:
        """Return the known registries and the default registry's namespaces.

        Waits a moment for the default registry's catalog if it has one. If the registry fails, known names are
        returned: many programs list the root of a mount, and must not depend on a registry.
        """
        registries = sorted({self.default_registry, *self.repositories.known_registries()})
        shown = [Child(CONTROL, DIRECTORY_MODE, self.control.key)]
        shown += [Child(name, DIRECTORY_MODE, name) for name in registries]
        # A first component that could be a host is read as one: such a repository is shown only below its registry.
        return shown + [child for child in self._default_children() if not is_registry(child.name)]

    def locate(self, key: str, tag: str = "") -> Node:
        """Return the node with that key, which an earlier look-up found. No registry is asked whether it still exists.

        *tag* is the key of the tag's directory that it is, or is below; '' if there is none. Reads the documents of its
        image, and blocks on the network for those that the cache has lost. Raises NotFound.

            /library/debian  ghcr.io/org/@/app         names; those of the default registry begin with `/`
            /library/debian/12                         with *tag* the same, the directory of a tag
            /library/debian/12@sha256:…/layers/000     with *tag* `/library/debian/12`, a part of what it pointed to
            /library/debian/sha256:…/layers/000        a part of a manifest by digest
        """
        if key == self.key:
            return self
        if key.partition("/")[0] == CONTROL:
            return self._below(self.control, key.split("/")[1:])
        names = (tag or key).split("/")
        registry = registry_named(names[0]) if names[0] else self.default_registry
        if registry is None:
            raise NotFound(f"{key} is not the key of a node")
        directory: Node = Namespace(names[0], registry, "", self)
        if not tag:
            return self._below(directory, names[1:])
        directory = self._below(directory, names[1:-1])
        if not isinstance(directory, Namespace):
            raise NotFound(f"{tag} is not the key of a tag")
        found = directory.locate_tag(names[-1])
        digest, *parts = key.removeprefix(tag).removeprefix("@").split("/")
        return self._below(found.image(Digest.parse(digest)), parts) if digest else found

    def _below(self, directory: Node, names: Sequence[str]) -> Node:
        for name in names:
            if isinstance(directory, Namespace):
                directory = directory.locate(name)
            elif isinstance(directory, Directory):
                directory = directory.lookup(name).node
            else:
                raise NotFound(f"nothing is below {directory.key}")
        return directory

    def _tag(self, name: str, registry: str) -> Found | None:
        """Return the tag of the default registry that *name* means; None if *name* means the registry *registry*."""
        host, colon, port = name.partition(":")
        if not colon or "." in host or host == "localhost" or name.startswith("[") or self._is_known(registry):
            return None
        if int(port) < FIRST_PORT_OF_REGISTRIES:
            return self._by_default(name)
        try:
            with under(_at_most(_ROOT_TIMEOUT_S)):
                return self._default().lookup(name)
        except (WouldBlock, Interrupted):
            raise
        except RegfsError:  # no such tag, or it cannot be asked for: the name means the registry
            return None

    def _by_default(self, name: str) -> Found:
        """Return what *name* means in the default registry; of a pasted reference that is not there, note the way."""
        try:
            return self._default().lookup(name)
        except NotFound:
            if (":" in name or "@" in name) and self.default_registry != DOCKER_HUB:
                self.note(f"{self.default_registry} has no {name}{self._meant(name)}")
            raise

    def _meant(self, name: str) -> str:
        """Return where the image may be that is pasted as *name*: only Docker Hub adds `library/`. No request."""
        path = f"{OFFICIAL}/{name}"
        if self.repositories.leads_to_known(self.default_registry, path.partition(":")[0].partition("@")[0]):
            return f"; there is {path}"
        return f"; Docker Hub's is {DOCKER_HUB}/{name}"

    def _is_known(self, registry: str) -> bool:
        return registry in {self.default_registry, *self.named} or registry in self.repositories.known_registries()

    def _default_children(self) -> list[Child]:
        default = self._default()
        try:
            with under(_at_most(_ROOT_TIMEOUT_S)):
                return default.children()
        except WouldBlock:
            raise
        except RegfsError:
            return default.known_children()

    def _default(self) -> Namespace:
        return Namespace("", self.default_registry, "", self)


def _at_most(seconds: float) -> Deadline:
    deadline = current()
    return Deadline(seconds) if deadline.may_wait else deadline
