"""The errno table is complete, and says what the design says."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from regfs import errors
from regfs.mount.errnos import ERRNOS, errno_of, is_failure


def kinds_of(kind: type[errors.RegfsError]) -> Iterator[type[errors.RegfsError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from kinds_of(child)


def test_every_error_class_has_a_row_or_inherits_one_that_is_not_the_roots() -> None:
    def is_told(kind: type[errors.RegfsError]) -> bool:
        return any(parent in ERRNOS for parent in kind.__mro__ if parent is not errors.RegfsError)

    assert [kind for kind in kinds_of(errors.RegfsError) if kind is not errors.RegfsError and not is_told(kind)] == []


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (errors.InvalidName, errno.ENOENT),
        (errors.NameTooLong, errno.ENAMETOOLONG),
        (errors.NotFound, errno.ENOENT),
        (errors.AccessDenied, errno.EACCES),
        (errors.RateLimited, errno.EBUSY),
        (errors.RegistryTimeout, errno.ETIMEDOUT),
        (errors.RegistryUnavailable, errno.EHOSTUNREACH),
        (errors.Offline, errno.EHOSTUNREACH),
        (errors.DigestMismatch, errno.EIO),
        (errors.ProtocolViolation, errno.EIO),
        (errors.BadManifest, errno.EIO),
        (errors.BadLayer, errno.EIO),
        (errors.BadConfiguration, errno.EIO),
        (errors.TooLarge, errno.EFBIG),
        (errors.Unsupported, errno.EOPNOTSUPP),
        (errors.Interrupted, errno.EINTR),
        (errors.OutOfThreads, errno.ENOMEM),
        (errors.ReadOnly, errno.EROFS),
        (errors.InUse, errno.EBUSY),
        (errors.NotADirectory, errno.ENOTDIR),
        (errors.IsADirectory, errno.EISDIR),
        (errors.NotASymlink, errno.EINVAL),
        (errors.NoSuchXattr, errno.ENODATA),
        (errors.BadHandle, errno.EBADF),
        (errors.CacheFull, errno.ENOSPC),
    ],
)
def test_error_has_the_errno_of_the_design(kind: type[errors.RegfsError], number: int) -> None:
    assert errno_of(kind("x")) == number


def test_a_new_kind_of_error_has_its_parents_errno() -> None:
    class Stranger(errors.AccessDenied):
        pass

    assert errno_of(Stranger("x")) == errno.EACCES


def test_no_error_is_told_as_eagain() -> None:
    assert errno.EAGAIN not in ERRNOS.values()


def test_a_missing_name_is_no_failure_and_a_refused_one_is() -> None:
    assert not is_failure(errors.NotFound("x"))
    assert is_failure(errors.AccessDenied("x"))
