"""Configuration files in TOML, which others wrote for other programs: each complaint names the file and the line.

Used by endpoints.py, hosts_toml.py and registries_conf.py. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from regfs.errors import BadConfiguration

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE_LIMIT = 1024 * 1024
_REMEDY = "mend the file or take it away"
_COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
# tomllib tells the place in its message alone before Python 3.14.
_TOML_PLACE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$", re.ASCII)


class ConfigurationFile(NamedTuple):
    """A file's path and text, for what has to be said about it."""

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


class LastGood(Generic[T]):
    """The last good reading of each file, which stays in use while the file makes no sense: it is being edited."""

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


def parse_toml(content: bytes, path: Path) -> tuple[ConfigurationFile, dict[str, Any]]:
    """Return the file at *path*, which has *content*, and the document in it. Raises BadConfiguration."""
    import tomllib  # here, because most machines have no such file

    if len(content) > FILE_LIMIT:
        raise BadConfiguration(f"{path} has more than {FILE_LIMIT} bytes; {_REMEDY}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadConfiguration(f"{path}, line {line}: it is not UTF-8; {_REMEDY}") from None
    try:
        return ConfigurationFile(path, text), tomllib.loads(text)
    except RecursionError:
        raise BadConfiguration(f"{path} is nested too deeply; {_REMEDY}") from None
    except ValueError as error:  # TOMLDecodeError, and what it lets through
        place = _TOML_PLACE.search(str(error))
        last = text.rstrip().count("\n") + 1
        where = f"{path}, line {place[1] or last}" if place else str(path)
        raise BadConfiguration(f"{where}: it is not TOML: {_TOML_PLACE.sub('', str(error))}; {_REMEDY}") from None
