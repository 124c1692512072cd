"""What the verbs of the command line do; the command line reads their arguments and prints what they return.

A verb works in its own process on the same cache as the mounts: what a mount has fetched is not fetched again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from regfs.app import App, build
from regfs.config import Config
from regfs.errors import CacheFailure, InvalidOption, RegfsError
from regfs.export.unpack import Unpacker, check_directory, prepare_directory, total_size
from regfs.images.image import Image
from regfs.model.digest import Digest
from regfs.model.names import Reference, parse_reference
from regfs.mount import mountpoint as mountpoints
from regfs.process.umask import current_umask
from regfs.rootfs.file_tree import FileTree
from regfs.store.blobs import BlobStore
from regfs.tree.namespace import ESCAPE
from regfs.verbs.progress import Count, Step, showing
from regfs.waiting.deadline import Deadline, under

Say = Callable[[str], None]
_DIGEST_RE = re.compile(r"[a-z0-9]+:[0-9a-f]{32,}")


@dataclass(frozen=True, slots=True)
class Done:
    """What a verb did: a line for stdout, notes for stderr, and whether all went well."""

    result: str
    notes: tuple[str, ...] = ()
    is_complete: bool = True


def unpack(
    reference_text: str, directory: Path, *, config: Config, environment: Mapping[str, str], say: Say, warn: Say
) -> Done:
    """Write all layers of an image, merged, into *directory*. Blocks on the network; raises RegfsErrors.

    *directory* is made when there is something to write. Where writing ends before its time, by an error or by Ctrl-C,
    *warn* hears that the directory is incomplete.
    """
    reference = read_reference(reference_text, config.default_registry, mountpoints.mounts())
    check_directory(directory)
    with _image(reference, config=config, environment=environment, say=say) as (app, image):
        with showing(lambda: _layer_steps(app), say=say, environment=environment):
            rows = _rootfs(image, config)
        written, total = Count(), total_size(rows)
        prepare_directory(directory)
        unpacker = Unpacker(
            rows, app.layer_cache.open, as_root=os.geteuid() == 0, umask=current_umask(), on_bytes=written.add
        )
        try:
            with showing(lambda: [Step("writing files", written.size, total)], say=say, environment=environment):
                summary = unpacker.into(directory)
        except BaseException:
            warn(f"{directory} is incomplete: remove it before you try again")
            raise
    notes = summary.notes()
    if summary.failures:
        notes.append(f"{len(summary.failures)} entries could not be written as the image has them:")
        notes.extend(f"  {failure}" for failure in summary.failures[:20])
    return Done(_full_name(reference, image), tuple(notes), is_complete=not summary.failures)


class Prefetched(NamedTuple):
    """What became of one image: *asked* as the user named it; its full *name* and the rest where it is known."""

    asked: str
    name: str = ""
    layers: int = 0
    received_bytes: int = 0
    failure: RegfsError | None = None


def prefetch(asked: Sequence[str], *, config: Config, environment: Mapping[str, str], say: Say) -> Iterator[Prefetched]:
    """Pass and merge all layers of the images *asked* for, one after the other; one that fails does not end it.

    Blocks on the network. Raises CacheFailure where the cache directory cannot be used: nothing would be kept.
    """
    app = build(config, environment)
    try:
        if app.note:
            raise CacheFailure(f"{config.cache_dir} cannot keep anything: {app.note}")
        for text in asked:
            yield _prefetch_one(text, app, config=config, environment=environment, say=say)
    finally:
        app.close()


def _prefetch_one(text: str, app: App, *, config: Config, environment: Mapping[str, str], say: Say) -> Prefetched:
    before = app.stats.value("registry.bytes")
    try:
        reference = read_reference(text, config.default_registry, mountpoints.mounts())
        image = _find(reference, app, config)
        with showing(lambda: _layer_steps(app), say=say, environment=environment):
            _rootfs(image, config)
        _insist_on_copies(image, app)
    except RegfsError as failure:
        return Prefetched(text, failure=failure)
    received = int(app.stats.value("registry.bytes") - before)
    return Prefetched(text, _full_name(reference, image), len(image.layers), received)


def _insist_on_copies(image: Image, app: App) -> None:
    """Raise CacheFailure where a document of *image* was served and not kept, as a full disk makes it."""
    for digest in {image.digest, image.manifest_document.digest, image.manifest.config.digest}:
        path = BlobStore(app.cache / "blobs").path(digest)
        if not path.exists():
            raise CacheFailure(f"{path} could not be kept; is there room on its disk? --cache-dir names another")


def read_reference(text: str, default_registry: str, mounts: Sequence[mountpoints.Mounted]) -> Reference:
    """Return the image that *text* names: a reference, or a path in a mount (`/mnt/reg/library/debian/12/rootfs`).

    A relative path that leads through a mount point is a path, as the shell completes it. Raises InvalidName,
    InvalidOption.
    """
    points = {mounted.mountpoint: mounted for mounted in mounts if mounted.is_regfs}
    inside = mountpoints.inside(text, points)
    if text not in (".", "..") and not text.startswith(("/", "./", "../")):
        here = mountpoints.inside(".", points)
        if inside is None or (here is not None and here.mountpoint == inside.mountpoint):
            return parse_reference(text, default_registry=default_registry)
    if inside is None:
        raise InvalidOption(f"{text} is neither an image nor in a mount of regfs")
    shown = points[inside.mountpoint].root.strip("/")  # of a bind mount: where in the mount it leads
    names = "/".join(filter(None, [shown, inside.path])).removesuffix("/rootfs").split("/")
    *repository, last = [name for name in names if name != ESCAPE]
    is_pasted = (":" in last or "@" in last[1:]) and not _DIGEST_RE.fullmatch(last)
    if not repository and not is_pasted:
        raise InvalidOption(f"{text} is no image: a repository and a tag are needed")
    source = points[inside.mountpoint].source
    if is_pasted:  # it names its own tag or digest
        return parse_reference("/".join([*repository, last]), default_registry=source)
    separator = "" if last.startswith("@") else "@" if _DIGEST_RE.fullmatch(last) else ":"
    return parse_reference(f"{'/'.join(repository)}{separator}{last}", default_registry=source)


@contextmanager
def _image(
    reference: Reference, *, config: Config, environment: Mapping[str, str], say: Say
) -> Iterator[tuple[App, Image]]:
    """Build the app, and find the image that *reference* names."""
    app = build(config, environment)
    if app.note:
        say(app.note)
    try:
        yield app, _find(reference, app, config)
    finally:
        app.close()


def _find(reference: Reference, app: App, config: Config) -> Image:
    """Return the image that *reference* names, its manifest and config read. Blocks on the network for --timeout."""
    with under(Deadline(config.timeout_s, is_users=True)):
        return _resolved(reference, app)


def _rootfs(image: Image, config: Config) -> FileTree:
    """Return the merged layers of *image*. Waits for --timeout, and longer while its layers make progress."""
    with under(Deadline(config.timeout_s, is_users=True)):
        return image.rootfs()


def _resolved(reference: Reference, app: App) -> Image:
    repository = app.repositories.repository(reference.repository)
    digest = reference.digest
    if digest is None and reference.short_digest is not None:
        digest = repository.digest_beginning(reference.short_digest)
    if digest is not None:
        return app.images.image(repository, digest)
    assert reference.tag is not None
    resolved = repository.resolve(reference.tag)
    return app.images.image(repository, resolved.digest, resolved.media_type)


def _layer_steps(app: App) -> list[Step]:
    """Return a step for each layer that is being fetched, named by the beginning of its digest."""
    return [
        Step(f"layer {_short(passing.digest)}", passing.progress.received, passing.size)
        for passing in app.layer_cache.passing()
    ]


def _short(digest: Digest) -> str:
    return digest.encoded[:12]


def _full_name(reference: Reference, image: Image) -> str:
    tag = f":{reference.tag}" if reference.tag is not None else ""
    return f"{reference.repository}{tag}@{image.digest}"
