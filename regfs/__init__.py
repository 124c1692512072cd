"""regfs shows OCI and Docker registries as directories.

Packages, from the top. Imports point down, and never between two packages of one row (tests/test_layering.py):

    cli           arguments and environment become a Config or a verb; the only package that prints and exits
    verbs         the work of the verbs, without parsing or printing
    daemon        the life of a mount: start, log, signals, end
    library       `import regfs`: images as Python objects, without a mount
    app | export  what the user asked for, and the composition root: Config → client → images → tree | an image
                  unpacked, or for the kernel to mount
    mount         two drivers that know FUSE: kernel/ (our own, on /dev/fuse) and fusepy/
    tree          what the mount looks like: look-up, attributes, listing, open; no FUSE, no HTTP
    images        repositories and images: where registry, store, layers and rootfs meet; workers/ for heavy work
    rootfs        the merge of an image's layers into one tree
    layers | registry | store     the files inside one blob | HTTP | copies on disk; functions are handed in
    telemetry     counters, failures, the requests of a mount
    model         values: digest, name, manifest, platform, attributes, node id; parsing and rendering, no I/O
    process       this process: user, threads, descriptors; waiting/: deadlines, single flights
    errors        the error classes

The way of a read(), for library/debian/12/rootfs/etc/os-release:

    read(2)
      │ LOOKUP of one name after the other; each answer is a node id      mount/kernel/requests.py
      ├─ library, debian, 12    invented directories                      tree/namespace.py, tree/tag.py
      ├─ rootfs                 may download the image, by a deadline     process/waiting/deadline.py, tree/image.py
      │   ├─ layers             each fetched once, in parallel            images/layers/layer_cache.py, layer_ingests.py
      │   │   ├─ blob           mirrors, tokens, retries                  registry/blobs.py
      │   │   ├─ inflate, tar   in a worker process                       images/workers/, layers/ingest.py
      │   │   └─ index, data    visible when both digests are verified    store/layers/layer_writer.py
      │   └─ merge              what layers share becomes one table       images/layers/merges.py, rootfs/merge.py
      ├─ etc, os-release        rows of that table, or of a layer's       rootfs/rootfs.py, rootfs/directories.py
      │ OPEN: the row names a span of its layer's data file               store/layers/content.py
      └ READ from that file; big files by the kernel alone (passthrough)  mount/kernel/passthrough.py

One name for one thing:

    image           a manifest for one platform, with its config and layers; an index names several
    layer           one blob of an image; its digest is of the blob, its diff id of the tar inside
    ingest          fetching, inflating, parsing and storing one layer, in one go
    index           the table of the files in one layer
    merged table    the table of the directories that layers of an image share; with their indexes, what rootfs/ shows
    row             one file in a table; its number is part of the node id
    data file       the bytes of all files of one layer; a file is a span of it
    promotion       the copy of a big file out of the data file, for passthrough
    node id         what FUSE calls a nodeid: an invented node, or table, layer and row (model/node_id.py)
    slot            the part of a node id that stands for one table
    deadline        how long one operation may wait; it belongs to the thread. NON_BLOCKING: not at all
    flight          one computation that several threads wait for
    worker          a process of our own for one ingest or one merge; a fork server forks it
    driver          what speaks FUSE: kernel or fusepy; a session is one mount of it
    journal         the failures of a mount, shown in .regfs/errors

Errors of all packages are RegfsErrors (errors.py); mount/errnos.py alone turns them into errnos, and cli/exit_codes.py
into exit codes.
"""

TYPE_CHECKING = False  # typing's own would have to be imported, which costs each start 5 ms
if TYPE_CHECKING:
    from regfs.library.change import Change
    from regfs.library.client import Client, diff, repositories, tags
    from regfs.library.client import open_image as open  # noqa: A004 (as in zipfile, tarfile, gzip: the module's own)
    from regfs.library.image import Image, Layer, Referrer
    from regfs.library.path import Path

__all__ = ["Change", "Client", "Image", "Layer", "Path", "Referrer", "diff", "open", "repositories", "tags"]

# Written here because importlib.metadata costs 35 ms at start.
__version__ = "0.1.0"

_EXPORTS = {
    "Change": ("change", "Change"),
    "Client": ("client", "Client"),
    "Image": ("image", "Image"),
    "Layer": ("image", "Layer"),
    "Path": ("path", "Path"),
    "Referrer": ("image", "Referrer"),
    "diff": ("client", "diff"),
    "open": ("client", "open_image"),
    "repositories": ("client", "repositories"),
    "tags": ("client", "tags"),
}
"""By name: the module of library/, and the name there. Loaded when it is first used: the daemon and verbs need none."""


def __getattr__(name: str) -> object:
    """Return what the library exports as *name*."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, exported = _EXPORTS[name]
    return getattr(import_module(f"{__name__}.library.{module}"), exported)
