"""The files of a layer in the cache: their paths, and whether they are there and whole.

    layers/<name>.index .tar .sums .chunks .parts .digests      <name> is that of layer_names.py

Used by layer_store.py, whose class adds opening and writing. Thread rule: any thread; blocks on the disk.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from regfs.errors import CacheDamaged, CacheFailure, NotFound
from regfs.model.digest import Digest
from regfs.store.eviction.inventory import CHUNKS, DATA, DIGESTS, INDEX, LAYERS, PARTS
from regfs.store.files.checksums import SUFFIX as SUMS
from regfs.store.files.checksums import is_as_written
from regfs.store.files.failures import cache_failure
from regfs.store.layers.chunk_map import ChunkMap
from regfs.store.layers.data_writer import TAR
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_names import name_of


class LayerFiles:
    """The files of layers in the cache at *root*. *boot* is this boot's id."""

    def __init__(self, root: Path, *, boot: str) -> None:
        self.root = root
        self.boot = boot
        self._layers = root / LAYERS

    def index_path(self, diff_id: Digest) -> Path:
        """Return the path of the layer's index, whether it exists or not."""
        return self._layers / f"{name_of(diff_id)}{INDEX}"

    def data_path(self, diff_id: Digest) -> Path:
        """Return the path of the layer's data file, whether it exists or not."""
        return self._layers / f"{name_of(diff_id)}{DATA}"

    def map_path(self, layer: Digest) -> Path:
        """Return the path of the chunk map, which lazy layers have."""
        return self._layers / f"{name_of(layer)}{CHUNKS}"

    def paths_of(self, layer: Digest) -> list[Path]:
        """Return the paths of all files that a layer can have in this directory, the index first."""
        paths = (self.index_path, self.data_path, self.map_path, self.parts_path, self.sums_path, self.digests_path)
        return [path(layer) for path in paths]

    def parts_path(self, layer: Digest) -> Path:
        """Return the path of what was fetched again of an evicted data file (chunks.py)."""
        return self._layers / f"{name_of(layer)}{PARTS}"

    def sums_path(self, diff_id: Digest) -> Path:
        """Return the path of the checksum of the layer's index."""
        return self._layers / f"{name_of(diff_id)}{SUMS}"

    def digests_path(self, layer: Digest) -> Path:
        """Return the path of the digests of the layer's files (content_digests.py)."""
        return self._layers / f"{name_of(layer)}{DIGESTS}"

    def has_names(self, diff_id: Digest) -> bool:
        """Whether the layer's index is here, so that its files can be listed; their bytes may have been evicted."""
        return self.index_path(diff_id).exists()

    def left_archive(self, diff_id: Digest) -> Path | None:
        """Return the data file of a layer that has no index, if it may be its archive; see LayerStore.drop_index()."""
        path = self.data_path(diff_id)
        has_others = self.has_names(diff_id) or self.map_path(diff_id).exists()
        return None if has_others or not path.exists() else path

    def is_ingested(self, diff_id: Digest) -> bool:
        """Whether the layer is here, names and bytes. The data file of a lazy layer may have holes."""
        return self.index_path(diff_id).exists() and self.data_path(diff_id).exists()

    def is_whole(self, diff_id: Digest) -> bool:
        """Whether all of the layer is here, in this version. Raises CacheFailure where that is unknown now."""
        try:
            with closing(LayerIndex.open(self.index_path(diff_id))) as index:
                layout = index.layout()
                if layout.source != TAR:
                    self.map_path(diff_id).stat()
                return self.data_path(diff_id).stat().st_size == layout.size
        except (NotFound, CacheDamaged, FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:  # out of descriptors, an I/O error: no reason to fetch a layer
            raise cache_failure(self.data_path(diff_id), error) from error

    def has_spans_of_all(self, diff_id: Digest, blob: Digest) -> bool:
        """Whether a plain layer's index has spans for all of its archive (layers/spans.py), as ranges of *blob*."""
        try:
            with closing(LayerIndex.open(self.index_path(diff_id))) as index:
                layout = index.layout()
                is_of_blob = layout.source == TAR and index.blob() == str(blob)
                return is_of_blob and sum(chunk.size for chunk in index.chunks_by_place()) == layout.tar_size
        except (NotFound, CacheDamaged):
            return False

    def is_complete(self, layer: Digest) -> bool:
        """Whether every chunk of a lazy layer is here."""
        try:
            return self.is_ingested(layer) and ChunkMap(self.map_path(layer), boot=self.boot).is_complete()
        except (OSError, CacheFailure):
            return False

    def has_sound_index(self, diff_id: Digest) -> bool:
        """Whether the layer's index is of this version and has its checksum. Raises CacheFailure."""
        path = self.index_path(diff_id)
        try:
            LayerIndex.open(path).close()
        except (NotFound, CacheDamaged):
            return False
        return is_as_written(self.root, path)
