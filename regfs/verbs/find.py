"""`regfs find`: the paths below a directory of an image that pass all tests, without a mount; as find(1) has them."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import translate
from re import compile as compile_pattern

from regfs.app.config import Config
from regfs.errors import InvalidOption
from regfs.library.path import Path
from regfs.verbs.image_paths import opened_paths
from regfs.verbs.ls import Entry, entry_of

TYPES = {
    "f": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK, "c": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
}  # fmt: skip
Test = Callable[[Entry], bool]


@dataclass(frozen=True, slots=True)
class Tests:
    """What a path must pass; None: no such test. *perm* is `MODE`, `-MODE` (all of these bits) or `/MODE` (any)."""

    name: str | None = None
    path: str | None = None
    types: str | None = None
    perm: str | None = None

    def passes(self) -> Callable[[Entry], bool]:
        """Return a function that tells whether an entry passes all *tests*. Raises InvalidOption."""
        tests = [*_of_name(self.name), *_of_path(self.path), *_of_type(self.types), *_of_permissions(self.perm)]
        return lambda entry: all(test(entry) for test in tests)


def find(
    text: str, tests: Tests, *, config: Config, environment: Mapping[str, str], say: Callable[[str], None]
) -> Iterator[Entry]:
    """Yield what is at and below *text*, IMAGE[:/PATH], and passes *tests*; directories before what is in them.

    Symbolic links are not followed, but for *text* itself. Blocks on the network; raises RegfsErrors.
    """
    passes = tests.passes()
    with opened_paths([text], config=config, environment=environment, say=say) as opened:
        for _, start in opened:
            for path in _below(start):
                entry = entry_of(path, path.name)
                if passes(entry):
                    yield entry


def _below(start: Path) -> Iterator[Path]:
    yield start
    if start.is_dir():
        for at, directories, others in start.walk():
            yield from (at / name for name in sorted([*directories, *others]))


def _of_name(pattern: str | None) -> list[Test]:
    if pattern is None:
        return []
    matches = compile_pattern(translate(pattern)).match
    return [lambda entry: matches(entry.name) is not None]


def _of_path(pattern: str | None) -> list[Test]:
    if pattern is None:
        return []
    matches = compile_pattern(translate(pattern)).match
    return [lambda entry: matches(entry.path) is not None]


def _of_type(types: str | None) -> list[Test]:
    if types is None:
        return []
    letters = types.split(",")
    if unknown := set(letters) - set(TYPES):
        raise InvalidOption(f"-type {types}: {sorted(unknown)[0]!r} is not one of {', '.join(TYPES)}")
    kinds = {TYPES[letter] for letter in letters}
    return [lambda entry: stat.S_IFMT(entry.mode) in kinds]


def _of_permissions(perm: str | None) -> list[Test]:
    if perm is None:
        return []
    sign, digits = (perm[:1], perm[1:]) if perm[:1] in ("-", "/") else ("", perm)
    try:
        bits = int(digits, 8)
    except ValueError:
        raise InvalidOption(f"-perm {perm}: write MODE, -MODE or /MODE in octal, for example /6000") from None
    match sign:
        case "-":
            return [lambda entry: entry.mode & bits == bits]
        case "/":
            return [lambda entry: not bits or bool(entry.mode & bits)]
        case _:
            return [lambda entry: stat.S_IMODE(entry.mode) == bits]
