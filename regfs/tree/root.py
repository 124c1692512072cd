"""The root of the mount: registries, and the default registry's names beside them.

    /
    ├── .regfs/                  see control.py
    ├── docker.io/  ghcr.io/  localhost:5000/
    └── library/                 a namespace of the default registry

A first component is a registry if Docker's rule takes it for a host. Any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from regfs.errors import MustWait, NotFound, RegfsError
from regfs.images.image import Images
from regfs.images.repositories import Repositories
from regfs.model.attributes import Attributes
from regfs.model.names import canonical_registry, is_registry
from regfs.patience import Patience, current, patient
from regfs.tree.control import ControlDirectory
from regfs.tree.namespace import Namespace
from regfs.tree.node import DIRECTORY_MODE, FOREVER, Child, Found, directory_attributes

CONTROL = ".regfs"
_ROOT_TIMEOUT_S = 2.0

# Desktops and crawlers probe every root for such files, and Docker's rule takes a name with a dot for a host. None of
# these endings is a top-level domain, so no registry is lost.
_FILE_ENDINGS = frozenset(
    {"bak", "cfg", "conf", "db", "desktop", "dll", "exe", "htm", "html", "inf", "ini", "jpg", "json", "lnk", "lock",
     "log", "png", "tmp", "toml", "txt", "xml", "yaml", "yml"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Root:
    """The root directory."""

    default_registry: str
    control: ControlDirectory
    repositories: Repositories
    images: Images
    key: str = "/"

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def lookup(self, name: str) -> Found:
        """Return a registry, a namespace of the default registry, or `.regfs`; asks nothing."""
        if name == CONTROL:
            return Found(self.control, FOREVER)
        if not is_registry(name):
            return self._default().lookup(name)
        if ":" not in name and name.lower().rpartition(".")[2] in _FILE_ENDINGS:
            raise NotFound(f"{name!r} looks like a file, not like a registry")
        registry = canonical_registry(name)
        return Found(Namespace(name, registry, "", self), FOREVER)

    def children(self) -> list[Child]:
        """Return the known registries and the default registry's namespaces.

        Blocks for the default registry's catalog where it has one; a registry that fails leaves what is known of it,
        for a mount's root is looked at by everybody, and must not depend on anybody.
        """
        registries = sorted({self.default_registry, *self.repositories.known_registries()})
        shown = [Child(CONTROL, DIRECTORY_MODE, self.control.key)]
        shown += [Child(name, DIRECTORY_MODE, name) for name in registries]
        # A first component that a host could have is taken for a host: such a repository is below its registry alone.
        return shown + [child for child in self._default_children() if not is_registry(child.name)]

    def _default_children(self) -> list[Child]:
        default, patience = self._default(), current()
        try:
            with patient(Patience(_ROOT_TIMEOUT_S) if patience.may_wait else patience):
                return default.children()
        except MustWait:
            raise
        except RegfsError:
            return default.known_children()

    def _default(self) -> Namespace:
        return Namespace("", self.default_registry, "", self)
