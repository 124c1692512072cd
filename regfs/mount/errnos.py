"""The table from error class to errno: the only one in regfs. Both drivers use it.

A class without a row has the errno of its parent (every InvalidName: ENOENT). Any exception but a RegfsError is a bug:
the drivers answer EIO, log the traceback and count `bugs`. Pure; any thread.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from regfs.errors import (
    AccessDenied,
    BadConfiguration,
    BadContent,
    BadHandle,
    CacheFailure,
    CacheFull,
    DigestUnresolved,
    Interrupted,
    InUse,
    InvalidName,
    InvalidOption,
    IsADirectory,
    LinkLoop,
    ManifestMissing,
    MountFailure,
    NameTooLong,
    NoSuchXattr,
    NotADirectory,
    NotASymlink,
    NotFound,
    OutOfThreads,
    PlatformMissing,
    RateLimited,
    ReadOnly,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
    StaleNode,
    TooLarge,
    Unsupported,
    WorkStalled,
    WouldBlock,
)

ERRNOS: Mapping[type[RegfsError], int] = {
    RegfsError: errno.EIO,
    InvalidName: errno.ENOENT,
    NameTooLong: errno.ENAMETOOLONG,
    NotFound: errno.ENOENT,
    AccessDenied: errno.EACCES,
    RateLimited: errno.EBUSY,  # never EAGAIN: Python turns that into None or a silently short read, others spin on it
    RegistryTimeout: errno.ETIMEDOUT,
    RegistryUnavailable: errno.EHOSTUNREACH,
    BadContent: errno.EIO,
    BadConfiguration: errno.EIO,  # never EINVAL, which blames the program that asks
    TooLarge: errno.EFBIG,
    Unsupported: errno.EOPNOTSUPP,
    Interrupted: errno.EINTR,
    # Of all errnos, only this one lets the kernel keep a name that it looks up once more (fuse_dentry_revalidate): any
    # other would take the mounts and working directories below the name away. Not EAGAIN, see RateLimited.
    OutOfThreads: errno.ENOMEM,
    WorkStalled: errno.ETIMEDOUT,
    ReadOnly: errno.EROFS,
    InUse: errno.EBUSY,
    NotADirectory: errno.ENOTDIR,
    IsADirectory: errno.EISDIR,
    NotASymlink: errno.EINVAL,
    LinkLoop: errno.ELOOP,  # of the library alone: in a mount the kernel follows links
    NoSuchXattr: errno.ENODATA,
    BadHandle: errno.EBADF,
    StaleNode: errno.ESTALE,
    CacheFull: errno.ENOSPC,  # of a file system that is read only, but whose user can make room
    # The last four never reach the kernel when all is well: the cache costs speed and not answers, mounting and
    # options are over before the first request, and WouldBlock sends the request to the pool.
    CacheFailure: errno.EIO,
    MountFailure: errno.EIO,
    InvalidOption: errno.EINVAL,
    WouldBlock: errno.EIO,
}

_ORDINARY_ANSWERS = (
    InvalidName,
    NotFound,
    NoSuchXattr,
    ReadOnly,
    Interrupted,
    WouldBlock,
    NotADirectory,
    IsADirectory,
    NotASymlink,
)

_TO_BE_EXPLAINED = (DigestUnresolved, ManifestMissing, PlatformMissing)


def errno_of(error: RegfsError) -> int:
    """Return the (positive) errno of *error*: its class's row, or that of the nearest parent with one."""
    for kind in type(error).__mro__:
        if kind in ERRNOS:
            return ERRNOS[kind]
    raise AssertionError(f"{type(error).__name__} is no RegfsError")


def is_failure(error: RegfsError) -> bool:
    """Return whether *error* belongs in the log and in `.regfs/errors`.

    A request for a name that does not exist is not a failure, unless the user cannot know why it does not exist.
    """
    return not isinstance(error, _ORDINARY_ANSWERS) or isinstance(error, _TO_BE_EXPLAINED)
