"""registries.conf: podman's file with the locations of registries, their mirrors, and the blocked ones.

Used by endpoints.py. An example, /etc/containers/registries.conf.d/hub.conf:

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
from typing import NamedTuple

from regfs.errors import BadConfiguration, InvalidName
from regfs.model.names import canonical_registry
from regfs.process.regular_files import read_regular_file
from regfs.process.user import configuration_directory
from regfs.registry.hosts.toml_files import FILE_LIMIT, LastGood, TomlTable, parse_toml

log = logging.getLogger(__name__)

_PATH = re.compile(r"(?:/[a-z0-9._-]+)*", re.ASCII)
_WHEN = ("all", "digest-only", "tag-only")


class Location(NamedTuple):
    """A location of a registry: a host, and the path (`/hub`, or empty) below which its repositories are."""

    host: str
    path: str
    insecure: bool = False
    digest_only: bool = False


class Rule(NamedTuple):
    """The rule for the registries that *prefix* names. *location* None: the registry's own name.

    *fault*: why the rest of the rule cannot be used, None if it can.
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
    """Return the files of which the first that exists counts, and the directories of `*.conf` that come after it.

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
        """Return the most specific rule about *registry*, None if there is none; a later file's replaces an equal one.

        Raises BadConfiguration if a file could never be read, because it may have a rule that blocks, and if the rule
        itself makes no sense; other registries are not affected by that.
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
    tables = parse_toml(content, path).tables("registry", "[[registry]]")
    rules = [_rule(table) for table in tables]
    return tuple(rule for rule in rules if rule is not None)


def _rule(table: TomlTable) -> Rule | None:
    """Return the rule of a `[[registry]]`, None where it is about a part of a registry."""
    location = table.text("location")
    prefix = table.text("prefix") or location
    if not prefix:
        table.fail("a registry has neither prefix nor location")
    if "/" in prefix:
        _covered(table, prefix.partition("/")[0])
        log.warning("%s: the rule for %.200r is left out: it is about a part of a registry", table.file.path, prefix)
        return None
    covered = _covered(table, prefix)
    try:
        by_digest_only = table.boolean("mirror-by-digest-only")
        return Rule(
            covered,
            None if location in ("", prefix) else _location(table, location),
            tuple(
                _mirror(mirror, digest_only=by_digest_only) for mirror in table.tables("mirror", "[[registry.mirror]]")
            ),
            table.boolean("insecure"),
            table.boolean("blocked"),
        )
    except BadConfiguration as error:
        return Rule(covered, None, (), insecure=False, blocked=False, fault=str(error))


def _mirror(table: TomlTable, *, digest_only: bool) -> Location:
    when = table.text("pull-from-mirror") or "all"
    if when not in _WHEN:
        table.fail(f"pull-from-mirror is not one of {', '.join(_WHEN)}", "pull-from-mirror")
    place = _location(table, table.text("location"))
    return Location(place.host, place.path, table.boolean("insecure"), digest_only or when == "digest-only")


def _covered(table: TomlTable, prefix: str) -> str:
    wildcard, rest = ("*.", prefix[2:]) if prefix.startswith("*.") else ("", prefix)
    return f"{wildcard}{_host(table, rest)}"


def _location(table: TomlTable, text: str) -> Location:
    host, slash, path = text.partition("/")
    path = f"{slash}{path}".rstrip("/")
    if not _PATH.fullmatch(path) or ".." in path:
        table.fail(f"location {text[:200]!r} is not a place of repositories", text)
    return Location(_host(table, host), path)


def _host(table: TomlTable, text: str) -> str:
    try:
        return canonical_registry(text)
    except InvalidName as error:
        table.fail(str(error), text)


def _present(files: Iterable[Path], directories: Iterable[Path]) -> list[Path]:
    """Return the files to read, in order, without those that may not be read."""
    found = [path for path in files if _is_file(path)][:1]
    for directory in directories:
        found += [path for path in _listed(directory) if path.name.endswith(".conf") and _is_file(path)]
    return found


def _listed(directory: Path) -> list[Path]:
    """Return the paths in *directory*, sorted by name; none if it does not exist or may not be read."""
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
        return read_regular_file(path, FILE_LIMIT)
    except OSError as error:
        raise BadConfiguration(f"{path} cannot be read: {error.strerror}") from error
