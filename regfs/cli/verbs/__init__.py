"""The verbs of the command line: one module for each, with its arguments and what it prints.

A module has `parser()`, which returns the parser of its arguments, and `run(given, environment)`, which returns the
exit code. The work is done by the modules of regfs/verbs/, which have the same names. Used by cli/main.py.

A module is loaded when its verb is used, and loads its work when it runs: `regfs --help` and `regfs status` load no
HTTP client.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from regfs.cli.arguments import Parser, refuse_unknown
from regfs.cli.terminal import tell


class Verb(NamedTuple):
    """What `regfs --help` says about a verb: how it is called, and what it does. Without a summary it is not shown."""

    usage: str
    summary: str


class Module(Protocol):
    """What each module of this package has. *run* raises RegfsErrors."""

    def parser(self) -> Parser: ...

    def run(self, given: argparse.Namespace, environment: Mapping[str, str]) -> int: ...


VERBS: dict[str, Verb] = {
    "ls": Verb("IMAGE[:/PATH]…", "list a directory of an image"),
    "cat": Verb("IMAGE:/PATH…", "print files of an image"),
    "cp": Verb("IMAGE:/PATH… DEST", "copy files and directories out of an image"),
    "find": Verb("IMAGE[:/PATH]", "find paths in an image by name, type and permissions"),
    "get": Verb("ARTIFACT [DIR]", "write the files of an artifact into a directory"),
    "inspect": Verb("IMAGE", "what an image is: platforms, configuration, layers"),
    "history": Verb("IMAGE", "the steps that built an image"),
    "which": Verb("IMAGE:/PATH", "which layer brought a path, and what is hidden below it"),
    "du": Verb("IMAGE[:/PATH]", "where the bytes of an image are"),
    "diff": Verb("IMAGE OTHER [PATH]", "what differs between two images, and which layer did it"),
    "tags": Verb("REPOSITORY", "list the tags of a repository"),
    "repos": Verb("[REGISTRY]", "list the repositories of a registry"),
    "login": Verb("[REGISTRY]", "try a login at a registry, and store it as docker does"),
    "logout": Verb("[REGISTRY]", "remove a login"),
    "umount": Verb("[-l|-f] MOUNTPOINT", "unmount, alive or dead"),
    "status": Verb("[MOUNTPOINT…]", "what the mounts are doing"),
    "refresh": Verb("[MOUNTPOINT…]", "let mounts ask for tags and listings again"),
    "restart": Verb("[MOUNTPOINT…]", "let another daemon take mounts over, after an upgrade; programs in them go on"),
    "prefetch": Verb("IMAGE [PATH…]", "fetch images, or parts of them, into the cache"),
    "path": Verb("IMAGE", "the path of an image by its digest, which never changes"),
    "mount": Verb("IMAGE DIR", "mount the files of an image, served by the kernel alone"),
    "run": Verb("[OPTIONS] IMAGE [COMMAND…]", "run the program of an image, or COMMAND in it, isolated"),
    "shell": Verb("[OPTIONS] IMAGE", "run a shell of an image in it"),
    "unpack": Verb("IMAGE[:/PATH] [DIR]", "write the files of an image into a directory"),
    "record": Verb("IMAGE [-- COMMAND…]", "record what a start of an image reads, to fetch that ahead"),
    "index": Verb("IMAGE [--push]", "make a SOCI index of an image, and push it"),
    "doctor": Verb("", "what this machine can do, and the remedy for what it cannot"),
    "config": Verb("", "which options hold, and where they come from"),
    "pin": Verb("IMAGE…", "keep images in the cache, whatever its limit"),
    "unpin": Verb("IMAGE…", "let pinned images be evicted again"),
    "pins": Verb("", "list the pinned images"),
    "export": Verb("IMAGE… > FILE", "write images into one file, for machines without a registry"),
    "import": Verb("FILE", "read images from such a file into the cache"),
    "cache": Verb("du|ls|rm|prune|verify", "look after the cache"),
    "setup": Verb("[--undo]", "put completion, the manual page, units and the helper of mount(8) into place"),
    "completion": Verb("bash|zsh|fish", "let the shell complete verbs, options, images and paths"),
    "complete": Verb("-- WORD…", ""),
    "help": Verb("[VERB]", "show this, or how a verb is used"),
    "version": Verb("", "show versions"),
}
ALIASES = {"unmount": "umount"}
# `import` cannot be the name of a module.
_MODULES = {"import": "import_archive"}


def verb_named(word: str) -> str | None:
    """Return the name of the verb *word*, which may be an alias; None where it is not a verb."""
    name = ALIASES.get(word, word)
    return name if name in VERBS else None


def load_verb(name: str) -> Module:
    """Return the module of the verb *name*."""
    return cast(Module, import_module(f"{__name__}.{_MODULES.get(name, name)}"))


def run_verb(name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the verb *name* with *arguments* and return the exit code. Raises RegfsErrors."""
    verb = load_verb(name)
    parser = verb.parser()
    asks_cache_for_help = name == "cache" and arguments[:1] == ["help"]
    if {"-h", "--help"} & set(parser.own_words(arguments)) or asks_cache_for_help:
        tell(parser.format_help().rstrip())
        return 0
    given, unknown = parser.parse_known_intermixed_args(list(arguments))
    refuse_unknown(unknown, parser)
    return verb.run(given, environment)
