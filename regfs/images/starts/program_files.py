"""Finds the files that an image's program loads at its start: interpreter, loader, libraries.

    config        ENTRYPOINT and CMD, by PATH of the image's environment   the program, and words that name files
    `#!`          the interpreter, also through env
    ELF           the loader (PT_INTERP), and the libraries that it loads: DT_NEEDED, by RPATH, LD_LIBRARY_PATH,
                  RUNPATH, ld.so.cache and the default directories, in this order (ld.so(8); musl's loader has fewer)

All files of one step are fetched at once, so a start costs one round trip for each level of nested libraries, not one
for each library. A damaged or hostile file ends its branch of the walk. Links are followed within the image. Used by
start_prefetch.py. Any thread; *fetch* and *read* block on the network.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from regfs.errors import BadContent, IsADirectory, NotADirectory, NotFound
from regfs.model.attributes import mode_of
from regfs.model.digest import Digest
from regfs.model.elf import MAGIC, Elf, Read, parse_elf
from regfs.model.ld_so_cache import MAX_CACHE, parse_ld_so_cache
from regfs.model.run_config import RunConfig
from regfs.rootfs.file_tree import FileTree
from regfs.rootfs.paths import find
from regfs.store.layers.content import Span

log = logging.getLogger(__name__)

Fetch = Callable[[list[Span]], None]
ReadSpan = Callable[[Span, int, int], bytes]

MAX_FILES = 512
MAX_DEPTH = 16
MAX_BYTES = 64 << 20
MAX_OF_FILE = 8 << 20
"""How many bytes of one file are fetched ahead: of a larger one its beginning, and segments written at its start."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT_DIRECTORIES = (b"/lib64", b"/usr/lib64", b"/lib", b"/usr/lib", b"/usr/local/lib")
_CACHE = b"/etc/ld.so.cache"
_MOST_WORDS = 32
_MOST_DIRECTORIES = 64
_SCRIPT = 256
# The bytes of a script's first line that execve(2) reads.


class _File(NamedTuple):
    """A file of a program; *node* is None where it is not known."""

    span: Span
    node: int | None = None

    @property
    def place(self) -> tuple[Digest, int]:
        return self.span.layer, self.span.offset


@dataclass(slots=True, eq=False)
class Walked:
    """What was fetched for the programs of one image: files by their places, bytes left, and the libraries by name."""

    seen: set[tuple[Digest, int]] = field(default_factory=set)
    left: int = MAX_BYTES
    cache: dict[bytes, tuple[bytes, ...]] | None = None


class ProgramFiles:
    """Fetches the files that programs in *tree* are made of, each once."""

    def __init__(
        self,
        tree: FileTree,
        config: RunConfig,
        *,
        fetch: Fetch,
        read: ReadSpan,
        node_of: Callable[[Span], int | None] = lambda _span: None,
        walked: Walked | None = None,
    ) -> None:
        """*fetch* fetches ranges of files, *read* returns one; both may wait for the network.

        *node_of* finds a file. What is in *walked* is not fetched again, and it is kept up to date.
        """
        self._tree = tree
        self._node_of = node_of
        self._config = config
        self._fetch_spans = fetch
        self._read = read
        self._environment = dict(text.partition("=")[::2] for text in config.env)
        self._walked = walked or Walked()

    def of_config(self) -> list[int]:
        """Return the files that ENTRYPOINT and CMD name, the program first. Fetches nothing."""
        words = [*self._config.entrypoint, *self._config.cmd][:_MOST_WORDS]
        # The shell form: `/bin/sh -c "exec server --option"`.
        words = [part for word in words for part in word.split()[:_MOST_WORDS]][:_MOST_WORDS]
        found = [node for word in words if (node := self._named(_bytes(word))) is not None]
        return list(dict.fromkeys(found))

    def fetch(self, programs: Iterable[int]) -> None:
        """Fetch *programs* and the files that are loaded with them, within the limits. Raises what *fetch* raises."""
        self._walk(self._files(programs))

    def fetch_loaded(self, span: Span) -> None:
        """Fetch the program or library that is *span*, and the files that are loaded with it; raises as fetch()."""
        self._walk([_File(span)])

    def _walk(self, step: list[_File]) -> None:
        for _ in range(MAX_DEPTH):
            walked = self._walked
            new = {file.place: file for file in step if file.place not in walked.seen}
            step = list(new.values())[: MAX_FILES - len(walked.seen)]
            if not step or walked.left <= 0:
                return
            walked.seen.update(file.place for file in step)
            self._fetch([file.span._replace(size=min(file.span.size, MAX_OF_FILE)) for file in step])
            step = [needed for file in step for needed in self._files(self._needed(file))]

    def _files(self, nodes: Iterable[int]) -> list[_File]:
        return [_File(span, node) for node in dict.fromkeys(nodes) if (span := self._span(node)) is not None]

    def _fetch(self, spans: list[Span]) -> None:
        wanted = []
        for span in spans:
            size = min(span.size, self._walked.left)
            if size > 0:
                wanted.append(span._replace(size=size))
                self._walked.left -= size
        if wanted:
            self._fetch_spans(wanted)

    def _needed(self, file: _File) -> list[int]:
        """Return the files that kernel and loader read next for *file*; none if it is not a program."""
        span = file.span
        read = partial(self._read, span)
        try:
            head = read(0, _SCRIPT)
            if head.startswith(b"#!"):
                return list(self._interpreters(head))
            if not head.startswith(MAGIC):
                return []
            elf = parse_elf(_bounded(read, span.size))
        except BadContent as error:
            log.debug("%s is not a program: %s", span, error)
            return []
        if span.size > MAX_OF_FILE:
            written = [each for each in elf.segments if each.is_writable and each.offset + each.size <= span.size]
            self._fetch([Span(span.layer, span.offset + each.offset, min(each.size, MAX_OF_FILE)) for each in written])
        return list(self._loaded(file, elf))

    def _interpreters(self, head: bytes) -> Iterator[int]:
        """Yield the interpreter of a script and, where that is env, the program that it looks up."""
        words = head[2:].split(b"\n", 1)[0].split()
        for word in words[:1]:
            yield from self._at(word)
        if words and words[0].rpartition(b"/")[2] == b"env":
            program = next((word for word in words[1:] if not word.startswith(b"-") and b"=" not in word), None)
            if program is not None and (found := self._named(program)) is not None:
                yield found

    def _loaded(self, file: _File, elf: Elf) -> Iterator[int]:
        """Yield the loader and the libraries of an ELF file."""
        if elf.interpreter:
            yield from self._at(elf.interpreter)
        if elf.needed and self._walked.cache is None:
            self._walked.cache = self._ld_so_cache()
        directories = self._directories(file, elf)
        for name in elf.needed:
            if b"/" in name:
                yield from self._at(name)
                continue
            candidates = [directory + b"/" + name for directory in directories]
            candidates += [
                *(self._walked.cache or {}).get(name, ()),
                *(each + b"/" + name for each in _DEFAULT_DIRECTORIES),
            ]
            found = next((found for path in candidates for found in self._at(path)), None)
            if found is not None:
                yield found

    def _directories(self, file: _File, elf: Elf) -> list[bytes]:
        """Return the directories that the loader searches before its cache, with `$ORIGIN` and `$LIB` replaced."""
        library_path = _bytes(self._environment.get("LD_LIBRARY_PATH", ""))
        texts = [b"" if elf.runpath else elf.rpath, library_path, elf.runpath]
        directories = [each for text in texts for each in text.split(b":") if each][:_MOST_DIRECTORIES]
        if any(b"$" in each for each in directories):
            node = self._node_of(file.span) if file.node is None else file.node
            if node is None:
                return []
            origin = b"/" + self._tree.path(node).rpartition(b"/")[0]
            for word, value in ((b"ORIGIN", origin), (b"LIB", b"lib64" if elf.is_64_bits else b"lib")):
                directories = [each.replace(b"${%s}" % word, value) for each in directories]
                directories = [each.replace(b"$" + word, value) for each in directories]
        return directories

    def _ld_so_cache(self) -> dict[bytes, tuple[bytes, ...]]:
        """Return the parsed ld.so.cache, empty if there is none. This also fetches it for the loader."""
        for node in self._at(_CACHE):
            span = self._span(node)
            if span is not None and span.size <= min(MAX_CACHE, self._walked.left):
                self._fetch([span])
                return parse_ld_so_cache(self._read(span, 0, span.size))
        return {}

    def _named(self, word: bytes) -> int | None:
        """Return the regular file that *word* of a command line names: a path, or a name in PATH."""
        if b"/" in word:
            paths = [word if word.startswith(b"/") else _bytes(self._config.working_dir) + b"/" + word]
        else:
            directories = _bytes(self._environment.get("PATH", _DEFAULT_PATH)).split(b":")
            paths = [directory + b"/" + word for directory in directories[:_MOST_DIRECTORIES]]
            paths.append(_bytes(self._config.working_dir) + b"/" + word)
        return next((found for path in paths for found in self._at(path)), None)

    def _at(self, path: bytes) -> Iterator[int]:
        """Yield the regular file at *path*, if there is one. Links are followed within the image."""
        try:
            node = find(self._tree, path)
            if stat.S_ISREG(mode_of(self._tree.attributes(node))):
                yield node
        except (NotFound, NotADirectory, BadContent):
            return

    def _span(self, node: int) -> Span | None:
        try:
            content = self._tree.content(node)
        except (NotFound, IsADirectory):
            return None
        return content if isinstance(content, Span) else None


def _bounded(read: Read, size: int) -> Read:
    """Return *read*, limited to a file of *size* bytes, because a hostile header may point anywhere."""

    def bounded(offset: int, length: int) -> bytes:
        return read(offset, min(length, size - offset)) if 0 <= offset < size else b""

    return bounded


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")
