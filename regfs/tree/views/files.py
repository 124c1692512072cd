"""`…/files/`: an artifact as the directory that its own tool would write.

    models/llama/v1/files/
    ├── model.safetensors       a blob under its own name, the same file as in blobs/
    ├── docs/README.md          a name may have directories
    └── chart/                  a tar, shown as its files

Names and sizes come from the manifest. A blob is fetched when it is opened; the kernel reads big ones by passthrough. A
tar is fetched when its directory is read. model/artifacts/ decides the names. Used by image.py. Any thread.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

from regfs.errors import NotFound
from regfs.images.artifact_files import archive_tree
from regfs.images.image import Image
from regfs.model.artifacts.layout import ArtifactFile
from regfs.model.attributes import Attributes
from regfs.rootfs.file_tree import FileTree
from regfs.tree.blobs import BlobFile
from regfs.tree.directory_parts import DirectoryOfImage
from regfs.tree.node import FOREVER, TABLE_MODE, Child, Found, Node, TableDirectory


@dataclass(frozen=True, slots=True)
class FilesDirectory(DirectoryOfImage):
    """The directory *path* of an artifact's files, "" for the top one."""

    path: str = ""

    def attributes(self) -> Attributes:
        """Return the attributes. The owner may write, so that a copy of the directory can be deleted."""
        return DirectoryOfImage.attributes(self)._replace(mode=TABLE_MODE)

    def lookup(self, name: str) -> Found:
        """Return a file, a directory or the content of a tar. Fetches no blob except a config that has the names."""
        image = self.pinned.image
        directory = image.files.directories[self.path]
        if name not in directory:
            raise NotFound(f"{image} names no file {name[:300]!r} there")
        return Found(self._node(name, directory[name]), FOREVER)

    def children(self) -> list[Child]:
        """Return the names in this directory."""
        return [self._child(name, file) for name, file in self.pinned.image.files.directories[self.path].items()]

    def _child(self, name: str, file: ArtifactFile | None) -> Child:
        node = self._node(name, file)
        if isinstance(node, TableDirectory):
            return Child(name, TABLE_MODE, node.key, node)
        return Child(name, TABLE_MODE if file is None else stat.S_IFREG | file.mode, node.key)

    def _node(self, name: str, file: ArtifactFile | None) -> Node:
        key, pinned = f"{self.key}/{name}", self.pinned
        if file is None:
            return FilesDirectory(key, pinned, f"{self.path}/{name}" if self.path else name)
        if file.is_archive:
            identity = f"files {file.descriptor.digest} {'/'.join(file.inside)}"
            return TableDirectory(key, identity, lambda: _archive(pinned.image, file))
        return NamedBlob(key, pinned.repository, file.descriptor, pinned, file)


def _archive(image: Image, file: ArtifactFile) -> FileTree:
    contents = image.contents
    return archive_tree(image.repository, file, contents, origin=str(image), note=contents.note)


@dataclass(frozen=True, slots=True)
class NamedBlob(BlobFile):
    """A blob with the name and attributes that the manifest gives it."""

    file: ArtifactFile

    def attributes(self) -> Attributes:
        """Return the file's attributes, its size from the descriptor."""
        file = self.file
        mtime_ns = file.mtime_ns or self.pinned.created_ns
        return Attributes(stat.S_IFREG | file.mode, file.descriptor.size, uid=file.uid, gid=file.gid, mtime_ns=mtime_ns)
