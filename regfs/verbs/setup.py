"""`regfs setup` and `regfs setup --undo`: put the files of setup_files.py into place, and remove exactly those.

What was put is recorded in PREFIX/share/regfs/setup.json, by path and digest:

    {"schema": 1, "files": {"/usr/local/share/man/man1/regfs.1": "sha256:…", "/sbin/mount.regfs": "link:…"},
     "directories": ["/usr/local/share/man/man1"]}

A file that is not in the record, or differs from it, belongs to its user: it is neither written over nor removed, and
the result says so. Directories that were made for the files are removed too, once they are empty.
One thread; blocks on the disk alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from regfs.errors import AccessDenied, NotFound, RegfsError
from regfs.verbs.setup_files import Wanted

_RECORD = "share/regfs/setup.json"
_SCHEMA = 1


class Step(NamedTuple):
    """What was done about one file: *kind* is put, removed or kept. *path* is where it is now, below the root."""

    kind: str
    path: Path
    reason: str = ""


class Put(NamedTuple):
    """What was put until now: marks by path, and the directories that were made for it, without the root."""

    files: dict[str, str]
    directories: set[str]


def put(wanted: Iterable[Wanted], prefix: Path, root: Path) -> list[Step]:
    """Write the files of *wanted* below *root*, and remove those of an earlier version that are no longer wanted.

    Raises AccessDenied or RegfsError, which name the file; what was put until then is in the record.
    """
    files = {str(file.path): file for file in wanted}
    record = _Record(prefix, root)
    before, directories = record.read()
    now = Put(dict(before), set(directories))
    try:
        steps = [_put_one(file, before.get(path), now, root) for path, file in files.items()]
        for path in before.keys() - files.keys():
            steps += _remove(path, before[path], root)
            del now.files[path]
    finally:
        record.write(now)
    return steps


def undo(prefix: Path, root: Path) -> list[Step]:
    """Remove what put() has put. Raises NotFound where there is no record, AccessDenied as put() does."""
    record = _Record(prefix, root)
    before, directories = record.read()
    if not before:
        raise NotFound(f"regfs setup has put nothing below {_below(root, prefix)}; --prefix names another place")
    steps = [step for path, mark in before.items() for step in _remove(path, mark, root)]
    record.remove()
    for directory in sorted(directories, key=len, reverse=True):
        with suppress(OSError):  # something else is in it by now
            _below(root, Path(directory)).rmdir()
    return steps


class _Record:
    """The file that says what was put."""

    def __init__(self, prefix: Path, root: Path) -> None:
        self._root = root
        self._place = prefix / _RECORD
        self._path = _below(root, self._place)

    def read(self) -> Put:
        try:
            document = json.loads(self._path.read_text())
            if document["schema"] != _SCHEMA:
                raise ValueError(f"its schema is {document['schema']}")
            files = {str(path): str(mark) for path, mark in document["files"].items()}
            return Put(files, {str(path) for path in document["directories"]})
        except FileNotFoundError:
            return Put({}, set())
        except OSError as error:
            raise _failure(self._path, error) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RegfsError(f"{self._path} is not a record of regfs setup: {error}") from error

    def write(self, now: Put) -> None:
        if not now.files:
            return
        _make_parent(self._place, now, self._root)
        document = {"schema": _SCHEMA, "files": now.files, "directories": sorted(now.directories)}
        _write(self._path, Wanted(self._place, json.dumps(document, indent=1)))

    def remove(self) -> None:
        _take_away(self._path)


def _put_one(file: Wanted, recorded: str | None, now: Put, root: Path) -> Step:
    place, mark = _below(root, file.path), _mark(file)
    state = _state(place)
    if state is not None and state not in (mark, recorded):
        return Step("kept", place, "regfs setup has not put it, or it was changed since")
    if state != mark:
        _make_parent(file.path, now, root)
        _write(place, file)
    if recorded is not None or state is None:  # a file that was there before setup stays after --undo
        now.files[str(file.path)] = mark
    return Step("put", place)


def _make_parent(path: Path, now: Put, root: Path) -> None:
    """Make the directories above *path*, and add those that were missing to *now*."""
    missing = [parent for parent in path.parents if not _below(root, parent).exists()]
    now.directories.update(map(str, missing))
    place = _below(root, path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failure(place.parent, error) from error


def _remove(path: str, mark: str, root: Path) -> Iterator[Step]:
    place = _below(root, Path(path))
    state = _state(place)
    if state is None:
        return
    if state != mark:
        yield Step("kept", place, "it was changed since regfs setup put it")
        return
    _take_away(place)
    yield Step("removed", place)


def _take_away(place: Path) -> None:
    try:
        place.unlink(missing_ok=True)
    except OSError as error:
        raise _failure(place, error) from error


def _write(place: Path, file: Wanted) -> None:
    """Put *file* at *place*, whole or not at all."""
    new = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        if file.target:
            os.symlink(file.target, new)
        else:
            new.write_text(file.text)
            new.chmod(0o644)
        new.replace(place)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise _failure(place, error) from error


def _state(place: Path) -> str | None:
    """Return the mark of the file or link at *place*, "" for anything else, None if *place* does not exist."""
    try:
        if place.is_symlink():
            return f"link:{os.readlink(place)}"
        return _digest(place.read_text(errors="surrogateescape"))
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        return ""
    except OSError as error:
        raise _failure(place, error) from error


def _mark(file: Wanted) -> str:
    return f"link:{file.target}" if file.target else _digest(file.text)


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()}"


def _below(root: Path, path: Path) -> Path:
    """Return the present place of *path*: below *root*, the directory that will be the root."""
    return root / path.relative_to("/")


def _failure(place: Path, error: OSError) -> RegfsError:
    kind = AccessDenied if isinstance(error, PermissionError) else RegfsError
    return kind(f"{place}: {error.strerror}")
