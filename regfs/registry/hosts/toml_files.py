"""TOML files that users wrote for other programs: typed access, and messages that name the file and the line.

Used by endpoints.py, hosts_toml.py and registries_conf.py. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Generic, NamedTuple, NoReturn, TypeVar

from regfs.errors import BadConfiguration

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE_LIMIT = 1024 * 1024
_REMEDY = "correct the file or remove it"
_COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
# tomllib tells the place in its message alone before Python 3.14.
_TOML_PLACE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$", re.ASCII)


class ConfigurationFile(NamedTuple):
    """A file's path and text, for messages about it."""

    path: Path
    text: str

    def fail(self, reason: str, *words: str) -> NoReturn:
        """Raise BadConfiguration; *words* stand in the file in this order, and the last one is where the fault is."""
        line = self._line_of(words)
        place = f"{self.path}, line {line}" if line else str(self.path)
        raise BadConfiguration(f"{place}: {reason}; {_REMEDY}")

    def _line_of(self, words: tuple[str, ...]) -> int:
        """Return the line of the last of *words* that is found after the ones before it, 0 where none is."""
        text = _COMMENT.sub(lambda comment: " " * len(comment[0]), self.text)
        end = line = 0
        for word in words:
            start = text.find(word, end)
            if start < 0:
                break
            end, line = start + len(word), text.count("\n", 0, start) + 1
        return line


class TomlTable(NamedTuple):
    """A table of a file. *words* stand in the file before its keys: messages find the line by them.

    Every method raises BadConfiguration where the value at *key* has another type.
    """

    values: Mapping[str, object]
    file: ConfigurationFile
    words: tuple[str, ...] = ()

    def boolean(self, key: str) -> bool:
        """Return the boolean at *key*, False where there is none."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self.fail(f"{key} is neither true nor false", key)
        return value

    def text(self, key: str) -> str:
        """Return the string at *key*, empty where there is none."""
        value = self.values.get(key, "")
        if not isinstance(value, str):
            self.fail(f"{key} is not a string", key)
        return value

    def strings(self, key: str) -> list[str]:
        """Return the list of strings at *key*, or the one string there; empty where there is none."""
        return self.strings_in(self.values.get(key, []), key)

    def strings_in(self, value: object, key: str) -> list[str]:
        """Return *value*, which stands at *key*, as a list of strings."""
        strings = [value] if isinstance(value, str) else value
        if not isinstance(strings, list) or not all(isinstance(string, str) for string in strings):
            self.fail(f"{key} is neither a string nor a list of strings", key)
        return strings

    def table(self, key: str) -> TomlTable:
        """Return the table at *key*, empty where there is none; *key* is not among its words."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.fail(f"{key[:200]!r} is not a table", key)
        return self._replace(values=value)

    def tables(self, key: str, header: str) -> list[TomlTable]:
        """Return the tables of the array at *key*, each of which *header* begins."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            self.fail(f"{key} is not a list of tables", key)
        return [
            TomlTable(table, self.file, (*self.words, *(header,) * number)) for number, table in enumerate(value, 1)
        ]

    def fail(self, reason: str, *words: str) -> NoReturn:
        """Raise BadConfiguration; the last of *words* is where the fault is."""
        self.file.fail(reason, *self.words, *(word for word in words if word not in self.words))


class LastGood(Generic[T]):
    """The last good reading of each file. It stays in use while the file makes no sense: it is being edited."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: dict[Path, T] = {}

    def read(self, path: Path, parse: Callable[[], T]) -> T:
        """Return what *parse* makes of the file, else the last good reading; raises BadConfiguration without one."""
        try:
            reading = parse()
        except BadConfiguration as error:
            with self._lock:
                last = self._readings.get(path)
            if last is None:
                raise
            log.warning("%s; its last good content stays in use", error)
            return last
        with self._lock:
            self._readings[path] = reading
        return reading

    def forget(self, path: Path) -> None:
        """Drop the reading of a file that is gone."""
        with self._lock:
            self._readings.pop(path, None)

    def keep(self, present: Collection[Path]) -> None:
        """Drop the readings of all files but those *present*."""
        with self._lock:
            self._readings = {path: reading for path, reading in self._readings.items() if path in present}


def parse_toml(content: bytes, path: Path) -> TomlTable:
    """Return the document in the file at *path*, which has *content*. Raises BadConfiguration."""
    import tomllib  # here, because most machines have no such file

    if len(content) > FILE_LIMIT:
        raise BadConfiguration(f"{path} has more than {FILE_LIMIT} bytes; {_REMEDY}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadConfiguration(f"{path}, line {line}: it is not UTF-8; {_REMEDY}") from None
    try:
        return TomlTable(tomllib.loads(text), ConfigurationFile(path, text))
    except RecursionError:
        raise BadConfiguration(f"{path} is nested too deeply; {_REMEDY}") from None
    except ValueError as error:  # TOMLDecodeError, and what it lets through
        place = _TOML_PLACE.search(str(error))
        last = text.rstrip().count("\n") + 1
        where = f"{path}, line {place[1] or last}" if place else str(path)
        raise BadConfiguration(f"{where}: it is not TOML: {_TOML_PLACE.sub('', str(error))}; {_REMEDY}") from None
