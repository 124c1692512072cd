"""Which files of an image are read when it starts: found from its config, its scripts and its ELF files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regfs.images.starts.program_files import ProgramFiles
from regfs.model.names import RepositoryName
from regfs.model.run_config import RunConfig
from regfs.rootfs.paths import find
from regfs.rootfs.rootfs import Rootfs
from regfs.store.layers.content import Span
from tests.support.elf import elf, library_cache
from tests.support.images import directory, file, image_of, layer, symlink
from tests.support.served import Served
from tests.support.shown import Shown

LOADER = b"/lib64/ld.so"
ENTRIES = (
    directory("lib64"),
    file("lib64/ld.so", elf()),
    directory("etc"),
    file("etc/ld.so.cache", library_cache({b"libcached.so": b"/opt/libcached.so"})),
    directory("opt"),
    file("opt/libcached.so", elf(needed=[b"libdeep.so"])),
    directory("usr"),
    directory("usr/lib"),
    file("usr/lib/libdeep.so", elf(needed=[b"libloop.so"])),
    file("usr/lib/libloop.so", elf(needed=[b"libdeep.so", b"libloop.so", b"libmissing.so"])),
    directory("app"),
    directory("app/bin"),
    directory("app/lib"),
    file("app/lib/libown.so", elf()),
    file("app/lib/libfound.so", elf()),
    file("usr/lib/libfound.so", elf()),
    file("app/bin/real", elf(interpreter=LOADER, needed=[b"libown.so", b"libcached.so"], runpath=b"$ORIGIN/../lib")),
    symlink("app/bin/server", "real"),
    file("app/bin/static", elf(interpreter=LOADER)),
    file("app/bin/paths", elf(needed=[b"libfound.so"])),
    file("app/bin/script", b"#!/usr/bin/env -S server --fast\nexit\n"),
    file("app/bin/wrapper", b"#! /app/bin/static -x\n"),
    directory("usr/bin"),
    file("usr/bin/env", elf(interpreter=LOADER)),
    file("app/bin/hostile", b"\x7fELF\x02\x01" + b"\xff" * 5000),
    file("app/bin/text", b"no program"),
    file("app/main.py", b"print()"),
    symlink("app/bin/round", "round"),
)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shown, Rootfs]]:
    served = Served(tmp_path_factory.mktemp("cache"))
    served.push("app", "1", image_of(layer(*ENTRIES)))
    shown = served.show()
    repository = shown.repositories.repository(RepositoryName(shown.app.config.default_registry, "app"))
    yield shown, shown.images.image(repository, repository.tags.resolve("1").digest).rootfs()
    served.close()


class Fetched:
    """What was fetched for a start, step by step, as paths."""

    def __init__(self, rootfs: tuple[Shown, Rootfs], config: RunConfig) -> None:
        self._shown, self._files = rootfs
        self.steps: list[list[str]] = []
        self.of = ProgramFiles(self._files, config, fetch=self._fetch, read=self._read, node_of=self._files.node_of)
        self._paths = {self._span(entry.name): entry.name.decode() for entry in ENTRIES if entry.content}
        self.of.fetch(self.of.of_config())

    def load(self, path: str) -> None:
        """Fetch what a program that runs loads with the library at *path*."""
        self.of.fetch_loaded(self._span(path.encode()))

    @property
    def paths(self) -> list[str]:
        return [path for step in self.steps for path in step]

    def _span(self, path: bytes) -> Span:
        content = self._files.content(find(self._files, path))
        assert isinstance(content, Span)
        return content

    def _fetch(self, spans: list[Span]) -> None:
        whole = {(span.layer, span.offset): path for span, path in self._paths.items()}
        self.steps.append([whole[span.layer, span.offset] for span in spans])

    def _read(self, span: Span, offset: int, size: int) -> bytes:
        opened = self._shown.contents.open(span)
        try:
            return opened.read_at(offset, size)
        finally:
            opened.close()


def started(rootfs: tuple[Shown, Rootfs], *words: str, env: tuple[str, ...] = ("PATH=/app/bin",)) -> Fetched:
    return Fetched(rootfs, RunConfig(entrypoint=words, env=env, working_dir="/app"))


def test_a_program_brings_its_loader_and_its_libraries_and_theirs(rootfs: tuple[Shown, Rootfs]) -> None:
    fetched = started(rootfs, "server", "--option")
    assert fetched.steps[0] == ["app/bin/real"]
    assert set(fetched.paths) == {
        "app/bin/real", "etc/ld.so.cache", "lib64/ld.so", "app/lib/libown.so", "opt/libcached.so",
        "usr/lib/libdeep.so", "usr/lib/libloop.so",
    }  # fmt: skip
    assert len(fetched.paths) == len(set(fetched.paths))
    assert len(fetched.steps) <= 5  # as many as libraries are nested, and ld.so.cache


def test_a_script_brings_its_interpreter_and_what_env_looks_up(rootfs: tuple[Shown, Rootfs]) -> None:
    assert {"app/bin/script", "usr/bin/env", "app/bin/real"} <= set(started(rootfs, "script").paths)
    assert set(started(rootfs, "/app/bin/wrapper").paths) == {"app/bin/wrapper", "app/bin/static", "lib64/ld.so"}


def test_words_that_name_files_come_too_and_the_shell_form(rootfs: tuple[Shown, Rootfs]) -> None:
    assert set(started(rootfs, "static", "main.py").paths) == {"app/bin/static", "app/main.py", "lib64/ld.so"}
    assert "app/bin/static" in started(rootfs, "/bin/sh", "-c", "exec static --now").paths


def test_the_environment_says_where_libraries_are_first(rootfs: tuple[Shown, Rootfs]) -> None:
    assert "usr/lib/libfound.so" in started(rootfs, "paths").paths
    env = ("PATH=/app/bin", "LD_LIBRARY_PATH=/nowhere:/app/lib")
    assert set(started(rootfs, "paths", env=env).paths) >= {"app/lib/libfound.so"}


def test_a_library_that_is_loaded_later_brings_its_own_libraries_once(rootfs: tuple[Shown, Rootfs]) -> None:
    fetched = started(rootfs, "static")
    fetched.load("app/bin/real")  # $ORIGIN is where that file is
    assert "app/lib/libown.so" in fetched.paths
    assert "usr/lib/libloop.so" in fetched.paths
    steps = len(fetched.steps)
    fetched.load("opt/libcached.so")
    assert len(fetched.steps) == steps


@pytest.mark.parametrize("word", ["hostile", "text", "round", "missing", "", "../../../etc", "\ud800"])
def test_what_is_no_program_costs_itself_at_most(rootfs: tuple[Shown, Rootfs], word: str) -> None:
    assert set(started(rootfs, word).paths) <= {f"app/bin/{word}"}
