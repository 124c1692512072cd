"""`regfs path`: the path of an image in a mount by its digest, which stays when the tag moves.

The mount itself resolves the tag, with its mirrors, credentials and cache, offline too. Blocks like any look-up in the
mount: for the --timeout of the mount at most.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from regfs.errors import (
    AccessDenied,
    InvalidOption,
    MountFailure,
    NotFound,
    RateLimited,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
)
from regfs.model.digest import Digest
from regfs.model.names import registry_named
from regfs.mount import mountpoint as mountpoints
from regfs.tree.tag import path_by_digest
from regfs.verbs.image_argument import read_reference
from regfs.verbs.status import choose

_NEWER = "user.regfs.newer"
_ERRORS: dict[int | None, type[RegfsError]] = {
    errno.ENOENT: NotFound,
    errno.EACCES: AccessDenied,
    errno.EBUSY: RateLimited,
    errno.ETIMEDOUT: RegistryTimeout,
    errno.EHOSTUNREACH: RegistryUnavailable,
    errno.ENOTCONN: MountFailure,
}


def image_path(image: str, mount: str | None, default_registry: str) -> Path:
    """Return the directory by digest of *image*, a reference or a path, in the mount on or around the path *mount*.

    Without *mount*, in the mount that the path *image* leads to, or else one of this user's: that of the working
    directory, or the first one of the registry that *image* names (*default_registry* where it names none), or for a
    name with a registry the first of all. The image is the one that the tag names now, even where the tag's directory
    still shows another one that is in use. Raises InvalidName, InvalidOption, MountFailure, and the error that the
    mount answers for the image.
    """
    mounted = _mount_for(image, mount, default_registry)
    places = [place for place in mountpoints.mounts() if place.device == mounted.device]  # its bind mounts too
    reference = read_reference(image, mounted.source, places)
    repository = reference.repository
    directory = Path(mounted.mountpoint, repository.registry, repository.path)
    digest = reference.digest or _digest_of(directory / reference.directory, image)
    path = Path(mounted.mountpoint, path_by_digest(repository, digest))
    try:
        os.stat(path)
    except OSError as error:
        raise _told_by_the_mount(error, image, mounted.mountpoint) from error
    return path


def _mount_for(image: str, mount: str | None, default_registry: str) -> mountpoints.Mounted:
    if mount is not None:
        return choose([mount])[0]
    points = {each.mountpoint for each in mountpoints.mounts() if each.is_regfs and not each.image}
    around = mountpoints.inside(image, points)
    if around is not None:
        return choose([around.mountpoint])[0]
    own = [each for each in choose([]) if not each.image and each.user_id in (None, os.geteuid())]
    if not own:
        raise MountFailure("no regfs of yours is mounted; regfs MOUNTPOINT mounts one")
    return own[0] if len(own) == 1 else _among(own, image, default_registry)


def _among(own: Sequence[mountpoints.Mounted], image: str, default_registry: str) -> mountpoints.Mounted:
    """Return which of several mounts is meant: each shows all registries, but names without one only its own."""
    here = mountpoints.inside(".", {each.mountpoint for each in own})
    if here is not None:
        return next(each for each in own if each.mountpoint == here.mountpoint)
    first, slash, _ = image.removeprefix("docker://").partition("/")
    named = registry_named(first) if slash else None
    for registry in (named or default_registry, default_registry):
        for each in own:
            if each.source == registry:
                return each
    if named is None:
        raise InvalidOption(
            f"--mount is needed, or the registry before the image's name: there are several mounts, {_listed(own)}"
        )
    return own[0]


def _listed(mounts: Sequence[mountpoints.Mounted]) -> str:
    return ", ".join(mountpoints.on_one_line(mounted.mountpoint) for mounted in mounts)


def _digest_of(directory: Path, image: str) -> Digest:
    try:
        shown = (directory / "digest").read_text().strip()
    except OSError as error:
        raise _told_by_the_mount(error, image, str(directory)) from error
    try:
        return Digest.parse(os.getxattr(directory, _NEWER).decode())
    except OSError:
        return Digest.parse(shown)  # the tag's directory shows what the tag names


def _told_by_the_mount(error: OSError, image: str, where: str) -> RegfsError:
    kind = _ERRORS.get(error.errno, RegfsError)
    return kind(f"{image}: {error.strerror} ({mountpoints.on_one_line(where)}); .regfs/errors of the mount may say why")
