"""`regfs record`: runs a program in an image, keeps which parts of its files were read, and pushes that."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from regfs.app.composition import App, Mount, build
from regfs.app.config import Config
from regfs.errors import CacheFailure, InvalidOption, MountFailure
from regfs.export.isolated import run_isolated
from regfs.images.image import Image
from regfs.images.named_images import full_name
from regfs.images.starts.trace import Trace
from regfs.model.run_config import parse_run_config
from regfs.model.start_record import StartRecord
from regfs.mount.kernel.session import KernelSession
from regfs.mount.mountpoint import mounts
from regfs.mount.options import MountOptions
from regfs.process.threads import start_thread
from regfs.tree.one_image import OneImage
from regfs.verbs.image import find_image, layer_steps, merged_files
from regfs.verbs.image_argument import read_reference
from regfs.verbs.progress import showing
from regfs.waiting.deadline import Deadline, under

Say = Callable[[str], None]
_STARTS_WITHIN_S = 30.0


class Wanted(NamedTuple):
    """What is to be recorded: *command*, or what the image's config starts, for at most *timeout_s* seconds."""

    image: str
    command: tuple[str, ...]
    push: bool
    timeout_s: float | None


class Recorded(NamedTuple):
    """The image's full name, what was read of how many files, the program's exit code, and the pushed artifact."""

    name: str
    files: int
    size: int
    code: int
    artifact: str = ""


def record(wanted: Wanted, *, config: Config, environment: Mapping[str, str], say: Say) -> Recorded:
    """Run the program, keep what it read of the image, and push that where it is wanted.

    Blocks on the network and for as long as the program runs. Raises MountFailure, and what the image brings.
    """
    reference = read_reference(wanted.image, config.default_registry, mounts())
    trace = Trace()
    with (
        tempfile.TemporaryDirectory(prefix="regfs-record-") as point,
        closing(build(config, environment, mount=Mount(point=Path(point), trace=trace))) as app,
    ):
        if app.note:
            raise CacheFailure(f"{config.cache_dir} cannot keep anything: {app.note}")
        image = find_image(reference, app)
        with showing(lambda: layer_steps(app), say=say, environment=environment):
            files = merged_files(image, app)
        run_config = parse_run_config(image.config_content)
        command = wanted.command or (*run_config.entrypoint, *run_config.cmd)
        if not command:
            raise InvalidOption(f"{image} says nothing of a program; write one: regfs record {wanted.image} -- COMMAND")
        with _mounted(image, app, point):
            code = run_isolated(Path(point), command, run_config, environment=environment, timeout_s=wanted.timeout_s)
        found = trace.record(files)
        if not found.reads:
            raise MountFailure(f"the program read nothing of {image}, and ended with {code}; nothing is recorded")
        image.repository.starts.keep(image.manifest_descriptor.digest, found)
        artifact = _pushed(image, found, app) if wanted.push else ""
    size = sum(read.size for read in found.reads)
    return Recorded(full_name(reference, image), len(found.files), size, code, artifact)


def _pushed(image: Image, found: StartRecord, app: App) -> str:
    with under(Deadline(app.config.timeout_s, is_users=True)):
        digest = image.repository.starts.push(image.manifest_descriptor, found, app.registry.pushes)
    return f"{image.repository.name}@{digest}"


@contextmanager
def _mounted(image: Image, app: App, point: str) -> Iterator[None]:
    """Show the files of *image* at *point* while the block runs. Raises MountFailure."""
    name, digest = image.repository.name, image.digest
    names: Sequence[str] = [name.registry, *name.path.split("/"), f"@{digest.algorithm}-{digest.encoded}"]
    with under(Deadline(app.config.timeout_s, is_users=True)):
        shown = OneImage(app.tree, names)
    session = KernelSession(
        shown, app.stats, errors=app.journal.record, timeout_s=app.config.timeout_s, passthrough=False
    )
    session.mount(point, MountOptions(source=f"regfs-record:{image}"[:200]))
    ready = threading.Event()
    thread = start_thread(session.serve, ready.set, name="regfs-session")
    try:
        if not ready.wait(_STARTS_WITHIN_S):
            raise MountFailure(f"the kernel does not answer at {point}")
        yield
    finally:
        try:
            session.unmount()
        except MountFailure:
            session.unmount(lazily=True)
            session.stop()
        thread.join(_STARTS_WITHIN_S)
