"""The manual page regfs(1), as roff, made from the same parsers and tables as `--help`: `regfs help --man | man -l -`.

Each option, verb and exit code is described once, in the code that it belongs to. Source: man(7). Pure; any thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Set

from regfs import __version__
from regfs.cli.arguments import MOUNT_USAGE, mount_parser
from regfs.cli.exit_codes import MEANINGS
from regfs.cli.manual_notes import notes
from regfs.cli.verbs import VERBS, load_verb

_TITLE = "show OCI and Docker registries as directories"
_DESCRIPTION = (
    "Mounts a file system on MOUNTPOINT in which each image of each container registry is a directory. What is touched "
    "is fetched, verified and cached. SOURCE is the registry that names without one belong to."
)
_WORDS = (
    "Each option above may be given as a word after -o, with _ for -: -o allow_other,cache_size=10G. Words that "
    "mount(8) and systemd pass on are accepted."
)
_OF_EVERY_VERB = "Each verb also takes -h, --help (show how it is used) and -d, --debug (log everything to stderr)."

_Description = tuple[tuple[str, ...], str | None]  # the names of an option, and its help text

# What a mount shows and answers. The code says it in many places; tests/test_docs.py compares these tables with it.
CONTROL_FILES = {
    "version": "the version of the daemon, which may be older than the command",
    "daemon.json": "process id, driver, platform, log and cache of the daemon",
    "stats.json": "counters and gauges",
    "metrics": "the same as Prometheus reads them",
    "requests": "the last 200 requests to registries: time, method, status, bytes, milliseconds, why, host, path, type",
    "fetching.json": "the layers that are being fetched now",
    "errors": "the last 200 failures, each with its time, its reason and what helps",
    "cache": "in images, layers, tables and blobs below it: what the cache holds, with size, last use and holders",
    "history": "in REGISTRY/REPOSITORY/TAG below it: the moves that were seen: when, from, to, last seen",
}
ATTRIBUTES = {
    "user.regfs.digest": "of a tag: the digest of the image that its directory shows; of a path below rootfs/, read by "
    "name alone: that of the layer that brought it",
    "user.regfs.layer": "of a path below rootfs/, read by name alone: the number of that layer in layers/",
    "user.regfs.created_by": "of a path below rootfs/, read by name alone: the command that made the layer",
    "user.regfs.checked": "of a tag: when the registry was last asked what it points to",
    "user.regfs.path": "of a tag: the path of that image by digest, which never changes, from the root of the mount",
    "user.regfs.newer": "of a tag in use: the digest of the image that it points to by now",
}
ERRORS = {
    "ENOENT": "the registry or the image has no such thing, or no name may look like this",
    "ENAMETOOLONG": "a name of more than 255 bytes",
    "EACCES": "the registry refuses (401, 403) with the credentials that there are, or the policy refuses the image",
    "EBUSY": "the registry limits the rate of requests (429) for longer than --timeout; rm of what is in use",
    "ETIMEDOUT": "no answer, or no progress with a layer or a disk, within --timeout",
    "EHOSTUNREACH": "no connection to the registry, or it fails (5xx), or regfs runs with --offline",
    "EIO": "wrong bytes, a wrong protocol, a broken configuration of a registry, or a bug of regfs",
    "EFBIG": "a document or layer over a limit of regfs",
    "EOPNOTSUPP": "a format that regfs does not read; the message names it",
    "ENOSPC": "neither the disk of the cache nor the directory for temporary files has room for the names of an image",
    "ENOMEM": "the system lets regfs start no further thread",
    "EINTR": "a signal has interrupted the wait",
    "EROFS": "writing: registries are shown read-only, but for rm in .regfs/cache/",
    "ENOTDIR": "a directory was needed",
    "EISDIR": "a file was needed",
    "EINVAL": "a symbolic link was needed",
    "ELOOP": "too many symbolic links, on a path that a verb or a Python program gave",
    "ENODATA": "no extended attribute has this name",
    "EBADF": "a file that is not open",
    "ESTALE": "a file of an earlier mount; open it again by name",
}
SIGNALS = {
    "SIGTERM": "unmount; while the mount is in use, detach it and serve until it is free. The second one: end at once",
    "SIGINT": "the same",
    "SIGHUP": "ask for tags and listings again, as regfs refresh does",
    "SIGUSR1": "write counters and the stacks of all threads to the log",
    "SIGUSR2": "switch the debug log on or off",
}


def manual_page() -> str:
    """Return the manual page as roff."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield f'.TH REGFS 1 "" "regfs {__version__}" "User Commands"'
    yield from (".SH NAME", _text(f"regfs - {_TITLE}"))
    yield from (".SH SYNOPSIS", _bold(MOUNT_USAGE), ".br", _bold("regfs VERB") + " ...")
    yield from (".br", _bold("mount.regfs SOURCE MOUNTPOINT [-fnsv] [-o WORDS]"))
    yield from (".SH DESCRIPTION", _text(_DESCRIPTION))
    yield ".SH OPTIONS"
    mounting = mount_parser()
    yield from _options(mounting, _shown(mounting))
    yield from (".PP", _text(_WORDS))
    yield from (".SH VERBS", _text(_OF_EVERY_VERB))
    described = {_description(action) for action in _shown(mounting)}
    for name, verb in VERBS.items():
        if verb.summary:
            yield from _verb(name, verb.usage, described)
    yield from notes(_text)
    yield ".SH FILES"
    yield from _table({f"MOUNTPOINT/.regfs/{name}": meaning for name, meaning in CONTROL_FILES.items()})
    yield ".SH EXTENDED ATTRIBUTES"
    yield from _table(ATTRIBUTES)
    yield ".SH ERRORS"
    yield from _table(ERRORS)
    yield ".SH SIGNALS"
    yield from _table(SIGNALS)
    yield ".SH EXIT STATUS"
    yield from _table({str(code): meaning for code, meaning in MEANINGS.items()})
    yield from _table({"128+N": "a signal with the number N ended the command"})


def _verb(name: str, usage: str, described: Set[_Description]) -> Iterator[str]:
    """Yield what *name* does and its options; those that OPTIONS has *described* are only named."""
    parser = load_verb(name).parser()
    yield from (f".SS regfs {_text(f'{name} {usage}'.rstrip())}", _text(parser.description or ""))
    shown = [action for action in _shown(parser) if action.dest not in ("help", "debug")]
    yield from _options(parser, [action for action in shown if _description(action) not in described])
    shared = [action.option_strings[-1] for action in shown if _description(action) in described]
    if shared:
        yield from (".TP", _bold(", ".join(shared)), "as under OPTIONS")


def _table(rows: Mapping[str, str]) -> Iterator[str]:
    for name, meaning in rows.items():
        yield from (".TP", _bold(name), _text(meaning))


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options of *parser*, and those of its arguments, that have a help text."""
    return [action for action in parser._actions if action.help not in (None, argparse.SUPPRESS)]


def _description(action: argparse.Action) -> _Description:
    return tuple(action.option_strings), action.help


def _options(parser: argparse.ArgumentParser, actions: Iterable[argparse.Action]) -> Iterator[str]:
    for action in actions:
        yield from (".TP", _bold(_usage(action)), _text((action.help or "") % {"prog": parser.prog}))


def _usage(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest)
    value = action.metavar or ("|".join(action.choices) if action.choices else action.dest.upper())
    suffix = "" if action.nargs == 0 else f" {value}"
    return f"{', '.join(action.option_strings)}{suffix}"


def _bold(text: str) -> str:
    return f"\\fB{_text(text)}\\fR"


def _text(text: str) -> str:
    """Return *text* with what roff reads as commands escaped: a dot or quote at the beginning, hyphens, backslashes.

    An ellipsis becomes three dots, for man(1) in the C locale leaves out what is not ASCII.
    """
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
