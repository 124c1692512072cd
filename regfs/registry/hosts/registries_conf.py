"""registries.conf: podman's file that tells where a registry is, which mirrors it has, and whether it is allowed.

Used by endpoints.py alone. An example, /etc/containers/registries.conf.d/hub.conf:

    [[registry]]
    prefix = "docker.io"
    [[registry.mirror]]
    location = "mirror.example:5000/hub"
    pull-from-mirror = "digest-only"

Rules for whole registries count (a host, or `*.example.com`); those for a part of one are warned about and left out.
Source: containers-registries.conf(5), version 2. Thread rule: any thread; reads files, opens no connection.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from regfs.errors import BadConfiguration, InvalidName
from regfs.model.names import canonical_registry
from regfs.process.user import configuration_directory
from regfs.registry.hosts.toml_files import FILE_LIMIT, ConfigurationFile, LastGood, parse_toml

log = logging.getLogger(__name__)

_HEADER, _MIRROR_HEADER = "[[registry]]", "[[registry.mirror]]"
_PATH = re.compile(r"(?:/[a-z0-9._-]+)*", re.ASCII)
_WHEN = ("all", "digest-only", "tag-only")


class Location(NamedTuple):
    """A place of a registry: its host, and the path (`/hub`, or empty) that repositories are below there."""

    host: str
    path: str
    insecure: bool = False
    digest_only: bool = False


class Rule(NamedTuple):
    """What is said of the registries that *prefix* names. *location* None: where it says itself.

    *fault* tells what makes the rest of the rule no rule.
    """

    prefix: str
    location: Location | None
    mirrors: tuple[Location, ...]
    insecure: bool
    blocked: bool
    fault: str | None = None

    def covers(self, registry: str) -> bool:
        """Tell whether the rule is about *registry*; `*.example.com` is about all hosts below example.com."""
        if self.prefix.startswith("*."):
            return registry.endswith(self.prefix[1:])
        return registry == self.prefix


def registries_files(environment: Mapping[str, str]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return the files of which the first that is there counts, and the directories of `*.conf` that come after it.

    CONTAINERS_REGISTRIES_CONF names the one file that counts.
    """
    if only := environment.get("CONTAINERS_REGISTRIES_CONF"):
        return (Path(only),), ()
    system = Path("/etc/containers")
    configuration = configuration_directory(environment)
    places = (system,) if configuration is None else (system, configuration / "containers")
    files = tuple(place / "registries.conf" for place in reversed(places))
    return files, tuple(place / "registries.conf.d" for place in places)


class RegistriesConf:
    """The rules in *files* and *directories*, read again each time; a file keeps its last good reading while it is bad.

    Thread rule: any thread.
    """

    def __init__(self, files: Sequence[Path], directories: Sequence[Path]) -> None:
        self._files = tuple(files)
        self._directories = tuple(directories)
        self._last_good: LastGood[tuple[Rule, ...]] = LastGood()

    def rule(self, registry: str) -> Rule | None:
        """Return the most special rule about *registry*, None where there is none; a later file's replaces an equal.

        Raises BadConfiguration where a file never could be read, for a rule that blocks may be in it, and where the
        rule itself makes no sense; other registries do not suffer from that.
        """
        rules: dict[str, Rule] = {}
        present = _present(self._files, self._directories)
        self._last_good.keep(present)
        for path in present:
            for rule in self._last_good.read(path, partial(_rules, path)):
                rules[rule.prefix] = rule
        covering = [rule for rule in rules.values() if rule.covers(registry)]
        best = max(covering, key=lambda rule: (not rule.prefix.startswith("*"), len(rule.prefix)), default=None)
        if best is not None and best.fault is not None:
            raise BadConfiguration(best.fault)
        return best


def _rules(path: Path) -> tuple[Rule, ...]:
    return parse_registries(_read(path), path=path)


def parse_registries(content: bytes, *, path: Path) -> tuple[Rule, ...]:
    """Return the rules of a registries.conf; *path* is the file's, for messages. Raises BadConfiguration."""
    file, document = parse_toml(content, path)
    tables = _tables(document.get("registry", []), file, "registry")
    rules = [_Table(table, file, (_HEADER,) * number).rule() for number, table in enumerate(tables, 1)]
    return tuple(rule for rule in rules if rule is not None)


class _Table(NamedTuple):
    """A table of the file; *words* are the headers that stand in the file up to its keys."""

    values: Mapping[str, object]
    file: ConfigurationFile
    words: tuple[str, ...]

    def rule(self) -> Rule | None:
        location = self._text("location")
        prefix = self._text("prefix") or location
        if not prefix:
            self._fail("a registry has neither prefix nor location")
        if "/" in prefix:
            self._prefix(prefix.partition("/")[0])
            log.warning("%s: the rule for %.200r is left out: it is about a part of a registry", self.file.path, prefix)
            return None
        try:
            return self._rule(self._prefix(prefix), prefix, location)
        except BadConfiguration as error:
            return Rule(self._prefix(prefix), None, (), insecure=False, blocked=False, fault=str(error))

    def _rule(self, covered: str, prefix: str, location: str) -> Rule:
        by_digest_only = self._boolean("mirror-by-digest-only")
        mirrors = _tables(self.values.get("mirror", []), self.file, "mirror")
        return Rule(
            covered,
            None if location in ("", prefix) else self._location(location),
            tuple(
                _Table(table, self.file, (*self.words, *(_MIRROR_HEADER,) * number)).mirror(digest_only=by_digest_only)
                for number, table in enumerate(mirrors, 1)
            ),
            self._boolean("insecure"),
            self._boolean("blocked"),
        )

    def mirror(self, *, digest_only: bool) -> Location:
        when = self._text("pull-from-mirror") or "all"
        if when not in _WHEN:
            self._fail(f"pull-from-mirror is none of {', '.join(_WHEN)}", "pull-from-mirror")
        place = self._location(self._text("location"))
        return Location(place.host, place.path, self._boolean("insecure"), digest_only or when == "digest-only")

    def _prefix(self, prefix: str) -> str:
        wildcard, rest = ("*.", prefix[2:]) if prefix.startswith("*.") else ("", prefix)
        return f"{wildcard}{self._host(rest)}"

    def _location(self, text: str) -> Location:
        host, slash, path = text.partition("/")
        path = f"{slash}{path}".rstrip("/")
        if not _PATH.fullmatch(path) or ".." in path:
            self._fail(f"location {text[:200]!r} is no place of repositories", text)
        return Location(self._host(host), path)

    def _host(self, text: str) -> str:
        try:
            return canonical_registry(text)
        except InvalidName as error:
            self._fail(str(error), text)

    def _text(self, key: str) -> str:
        value = self.values.get(key, "")
        if not isinstance(value, str):
            self._fail(f"{key} is not a string", key)
        return value

    def _boolean(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self._fail(f"{key} is neither true nor false", key)
        return value

    def _fail(self, reason: str, *words: str) -> NoReturn:
        self.file.fail(reason, *self.words, *words)


def _tables(value: object, file: ConfigurationFile, key: str) -> list[Mapping[str, object]]:
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        file.fail(f"{key} is not a list of tables", key)
    return value


def _present(files: Iterable[Path], directories: Iterable[Path]) -> list[Path]:
    """Return the files to read, in order; what we may not look at is passed over."""
    found = [path for path in files if _is_file(path)][:1]
    for directory in directories:
        found += [path for path in _listed(directory) if path.name.endswith(".conf") and _is_file(path)]
    return found


def _listed(directory: Path) -> list[Path]:
    """Return what is in *directory*, sorted by name; nothing where it is not there or may not be looked at."""
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            log.debug("%s cannot be looked at: %s", directory, error)
        return []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        log.debug("%s cannot be looked at: %s", path, error)
        return False


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise BadConfiguration(f"{path} cannot be read: {error.strerror}") from error
