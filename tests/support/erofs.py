"""EROFS images of merged test images, mounted by the kernel where it can."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.export.erofs.image import write_image
from regfs.export.erofs.names import Names
from regfs.mount.mount_api import READ_ONLY, Refused, attach, make_mount
from tests.support.snapshot import Entry, snapshot
from tests.support.trees import MergedImage


def missing() -> str:
    """Return why the kernel cannot mount an EROFS image here, "" if it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if "erofs" not in Path("/proc/filesystems").read_text():
        return "the kernel has no EROFS"
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 12):
        return "EROFS on files needs Linux 6.12"
    return ""


needs_erofs = pytest.mark.skipif(bool(missing()), reason=missing())


def written(image: MergedImage, path: Path) -> Path:
    """Write the image of *image* to *path*, and return it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        write_image(fd, Names(image.rootfs), scratch=path.parent)
    finally:
        os.close(fd)
    return path


def devices(image: MergedImage) -> list[Path]:
    """Return the data files of *image*, base first."""
    return [index.path.with_suffix(".tar") for index in image.indexes]


@contextmanager
def mounted(image: MergedImage, path: Path, point: Path) -> Iterator[Path]:
    """Mount the image at *path* on *point*, which is made, while the block runs."""
    options = [("source", str(path)), *(("device", str(device)) for device in devices(image))]
    fd = make_mount("erofs", options, attributes=READ_ONLY)
    try:
        point.mkdir(exist_ok=True)
        attach(fd, str(point))
    finally:
        os.close(fd)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


def kernel_snapshot(image: MergedImage, directory: Path) -> dict[bytes, Entry]:
    """Return what the kernel shows of *image*; *directory* gets the image file and the mount point."""
    with mounted(image, written(image, directory / "image.erofs"), directory / "mounted") as point:
        return snapshot(point)


__all__ = ["Refused", "devices", "kernel_snapshot", "mounted", "needs_erofs", "written"]
