"""The words of `-o`: what mount(8), fstab and systemd put there, sorted into options of regfs, ro, noexec and noise.

Used for `regfs -o` and for mount.regfs. What mount(8) and mount.fuse(8) pass was found by trying: `rw`
always comes, `dev,suid` come unasked, `_netdev,nofail,user` reach mount.regfs. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from regfs.app.config import OPTIONS, Config, Option, option_named, suggestion, with_options
from regfs.errors import InvalidOption

# Meant for mount(8), for systemd, or for file systems that are written to.
# `suid` and `dev` are here because mount.fuse(8) adds them unasked: they prove nothing about the user's wish.
_SWALLOWED = frozenset(
    [
        "defaults", "auto", "noauto", "user", "users", "nouser", "owner", "group", "_netdev",
        "nofail", "exec", "async", "sync", "relatime", "norelatime", "strictatime", "nostrictatime", "diratime",
        "noatime", "nodiratime", "dirsync", "lazytime", "nolazytime", "atime", "nonempty", "noforget", "auto_cache",
        "kernel_cache", "big_writes", "suid", "dev", "nosuid", "nodev", "loud", "silent", "mand", "nomand", "iversion",
        "noiversion", "use_ino", "readdir_ino",
    ]
)  # fmt: skip
_SWALLOWED_SETTINGS = frozenset(
    ["entry_timeout", "attr_timeout", "negative_timeout", "max_read", "max_readahead", "subtype", "comment"]
)


class Words(NamedTuple):
    """The words of one `-o`: options of regfs, noexec, ro or rw (the last one holds), fsname, and unknown words."""

    options: tuple[tuple[Option, str], ...]
    noexec: bool
    read_only: bool | None
    fsname: str | None
    unknown: tuple[str, ...]

    def applied_to(self, config: Config) -> Config:
        """Return *config* with these words in it. Raises InvalidOption where a value makes no sense."""
        config = with_options(config, self.options)
        return replace(
            config,
            noexec=self.noexec or config.noexec,
            read_only=config.read_only if self.read_only is None else self.read_only,
            fsname=self.fsname or config.fsname,
        )


IN_MEMORY = "-"
"""In the place of the directory that what is written goes to: into memory."""


class ImageWords(NamedTuple):
    """The words that only a mount of one image has (fuse, writable, writable=DIR, idmap=MAP), and the rest."""

    by_fuse: bool
    writable: str | None
    id_map: str | None
    others: tuple[str, ...]


def image_words(texts: Sequence[str]) -> ImageWords:
    """Return what the words of all `-o` ask for beyond what every mount has."""
    by_fuse, writable, id_map, others = False, None, None, []
    for word in (word for text in texts for word in split_words(text)):
        name, equals, value = word.partition("=")
        if word == "fuse":
            by_fuse = True
        elif name == "writable":
            writable = value if equals else IN_MEMORY
        elif name == "idmap":
            id_map = value
        else:
            others.append("".join(f"\\{character}" if character in ',\\"' else character for character in word))
    return ImageWords(by_fuse, writable, id_map, tuple(others))


def split_words(text: str) -> Iterator[str]:
    """Yield the words of `a,b=c\\,d`: a comma after a backslash, or within double quotes, belongs to its word."""
    word, quoted, escaped = [], False, False
    for character in text:
        if escaped:
            word.append(character if character in ',\\"' else "\\" + character)
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            yield "".join(word)
            word = []
        else:
            word.append(character)
    yield "".join(word) + ("\\" if escaped else "")


def parse_words(text: str) -> Words:
    """Return what the words of *text* ask for. Raises InvalidOption for a missing or a needless value."""
    options: list[tuple[Option, str]] = []
    noexec, read_only, unknown, fsname = False, None, [], None
    for word in filter(None, split_words(text)):
        name, equals, value = word.partition("=")
        option = option_named(name)
        if option is not None and word != "owner":  # alone it is mount(8)'s
            _check_value(option, has_value=bool(equals))
            options.append((option, value))
        elif word == "noexec":
            noexec = True
        elif word in ("ro", "rw"):
            read_only = word == "ro"
        elif name == "fsname":
            fsname = value
        elif not _is_noise(name, has_value=bool(equals)):
            unknown.append(word)
    return Words(tuple(options), noexec, read_only, fsname, tuple(unknown))


def complaint(word: str) -> InvalidOption:
    """Return the error about an unknown word, with the known word nearest to it."""
    name = word.partition("=")[0]
    known = [option.word for option in OPTIONS]
    return InvalidOption(f"-o {name}: regfs knows no such option{suggestion(name.replace('-', '_'), known)}")


def _is_noise(name: str, *, has_value: bool) -> bool:
    if name.lower().startswith("x-"):
        return True
    return name in (_SWALLOWED_SETTINGS if has_value else _SWALLOWED)


def _check_value(option: Option, *, has_value: bool) -> None:
    if option.is_flag and has_value:
        raise InvalidOption(f"-o {option.name}: takes no value")
    if not option.is_flag and not has_value:
        raise InvalidOption(f"-o {option.name}: needs a value, -o {option.word}={option.metavar}")
