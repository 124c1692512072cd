"""The command line: arguments and environment become a Config; the only module that prints, exits and reads os.environ.

    regfs [OPTIONS] [SOURCE] MOUNTPOINT      mount; what mount.fuse(8) calls too
    regfs VERB …                             umount, unpack, prefetch, cache, status
    mount.regfs SOURCE MOUNTPOINT [-fnsv] [-o WORDS]     what mount(8) calls: another language, -f means fake there

Exit codes: 0; 1 it failed; 2 the command line makes no sense; and for verbs 3 not found, 4 denied, 5 try again later,
6 bad content. mount.regfs has those of mount(8): 1 usage or permission, 32 mount failure.

Nothing heavy is imported before it is known to be needed: `regfs --version` is 30 ms, most of it Python's own.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from regfs.arguments import (
    MOUNT_USAGE,
    Parser,
    add_common,
    mount_helper_parser,
    mount_parser,
    refuse_unknown,
    verb_parser,
)
from regfs.config import OPTIONS, Config, default_cache_dir, with_options
from regfs.errors import (
    AccessDenied,
    BadContent,
    InvalidName,
    InvalidOption,
    NotFound,
    RateLimited,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
)
from regfs.version import VERSION

FALLBACK_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FAILED, USAGE = 1, 2
MOUNT_FAILURE = 32
_EXIT_CODES: tuple[tuple[type[RegfsError], int], ...] = (
    (InvalidOption, USAGE),
    (NotFound, 3),
    (InvalidName, USAGE),
    (AccessDenied, 4),
    (RateLimited, 5),
    (RegistryTimeout, 5),
    (RegistryUnavailable, 5),
    (BadContent, 6),
)


def main() -> NoReturn:
    """Run `regfs` and exit."""
    _leave(_guarded(lambda: run(sys.argv[1:], os.environ)))


def mount_main() -> NoReturn:
    """Run `mount.regfs` and exit with the codes of mount(8)."""
    code = _guarded(lambda: run_mount_helper(sys.argv[1:], os.environ))
    _leave({0: 0, USAGE: 1}.get(code, MOUNT_FAILURE))


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `regfs` with *arguments* and return the exit code. Raises RegfsError."""
    if arguments and arguments[0] in _VERBS:
        return _VERBS[arguments[0]](arguments[1:], environment)
    parser = mount_parser(_VERBS)
    given, unknown = parser.parse_known_intermixed_args(list(arguments))
    if given.help:
        print(parser.format_help(), end="")
        return 0
    if given.version:
        print(version())
        return 0
    refuse_unknown(unknown, parser)
    if not 1 <= len(given.paths) <= 2:
        raise InvalidOption(
            f"a mount point is needed: {MOUNT_USAGE}" if not given.paths else f"too many words: {MOUNT_USAGE}"
        )
    config = _config(given, environment)
    *source, mountpoint = given.paths
    return mount(_with_source(config, source[0]) if source else config, mountpoint, environment)


def run_mount_helper(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `mount.regfs` as mount(8) calls it and return the exit code of `regfs`. Raises RegfsError."""
    parser = mount_helper_parser()
    given = parser.parse_intermixed_args(list(arguments))
    config = _with_source(_default_config(environment), given.source)
    config = _with_words(config, given.words, sloppy=given.sloppy)
    return 0 if given.fake else mount(config, given.mountpoint, environment)


def mount(config: Config, mountpoint: str, environment: Mapping[str, str]) -> int:
    """Check, mount and serve; a background mount's parent returns as soon as it answers. Raises MountFailure."""
    gc.disable()  # looking for garbage among what a start loads takes a twentieth of it; the daemon turns it on again
    from regfs import checks, daemon, launch
    from regfs.logs import log_name
    from regfs.mount.mountpoint import resolved

    daemon.mount_options(config)
    point = resolved(mountpoint)
    for note in checks.prepare(point):
        _warn(note)
    if config.foreground:
        report = _TerminalReport()
        daemon.serve(config, point, environment=environment, report=report)
        return report.code
    outcome = launch.in_background(
        lambda report: daemon.serve(config, point, environment=environment, report=report),
        log_name=log_name(config.log_file, foreground=False),
    )
    if not outcome.is_child:
        _say(outcome.code, outcome.message)
    return outcome.code


class _TerminalReport:
    """Tells a start in the foreground to the terminal."""

    def __init__(self) -> None:
        self.code = 0

    def doing(self, what: str) -> None:
        del what

    def ready(self, message: str) -> None:
        _say(0, message)

    def failed(self, code: int, message: str) -> None:
        self.code = code
        _say(code, message)


def umount_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs umount [-l] MOUNTPOINT`."""
    del environment
    parser = verb_parser("umount", "Unmount a regfs, alive or dead.")
    parser.add_argument("-l", "--lazy", action="store_true", help="also where it is in use; who is inside may stay")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    given = _parse_verb(parser, arguments)
    if given is None:
        return 0
    from regfs import checks

    print(checks.umount(given.mountpoint, lazily=given.lazy))
    return 0


def unpack_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs unpack [OPTIONS] IMAGE [DIR]`."""
    parser = verb_parser("unpack", "Write all layers of an image, merged, into DIR (./rootfs), which must be empty.")
    parser.add_argument("image", metavar="IMAGE", help="[registry/]repository[:tag][@digest], or its path in a mount")
    parser.add_argument("directory", metavar="DIR", nargs="?", default="rootfs")
    given = _parse_verb(parser, arguments, headings=("registry", "cache"))
    if given is None:
        return 0
    from pathlib import Path

    from regfs import verbs

    config = _verb_config(given, environment)
    done = verbs.unpack(
        given.image, Path(given.directory).absolute(), config=config, environment=environment, say=_warn
    )
    for note in done.notes:
        _warn(note)
    print(done.result)
    return 0 if done.is_complete else FAILED


def prefetch_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs prefetch [OPTIONS] IMAGE`."""
    parser = verb_parser("prefetch", "Fetch all layers of an image into the cache, for mounts to come.")
    parser.add_argument("image", metavar="IMAGE", help="[registry/]repository[:tag][@digest], or its path in a mount")
    given = _parse_verb(parser, arguments, headings=("registry", "cache"))
    if given is None:
        return 0
    from regfs import verbs

    config = _verb_config(given, environment)
    print(verbs.prefetch(given.image, config=config, environment=environment, say=_warn).result)
    return 0


def cache_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs cache [OPTIONS] du|prune|verify`."""
    from regfs import cache_verbs

    parser = verb_parser("cache", "Look after the cache; mounts may use it meanwhile.")
    cache_verbs.add_arguments(parser)
    given = _parse_verb(parser, arguments, headings=("cache",))
    if given is None:
        return 0
    return cache_verbs.run(given, _verb_config(given, environment), say=print, on_terminal=sys.stdout.isatty())


def status_verb(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`regfs status [--format text|json] [MOUNTPOINT…]`."""
    parser = verb_parser("status", "Show what mounts are doing: all, or those named. On a terminal with live bars.")
    parser.add_argument("mountpoints", metavar="MOUNTPOINT", nargs="*")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="json does not change its form")
    given = _parse_verb(parser, arguments)
    if given is None:
        return 0
    from regfs import status

    found = status.find(given.mountpoints)
    if given.format == "json":
        import json

        print(json.dumps([each.as_json() for each in found], indent=1))
    else:
        for each in found:
            print("\n".join(each.lines()), flush=True)
        if len(found) == 1 and sys.stdout.isatty() and sys.stderr.isatty():
            status.watch(found[0], say=_warn, environment=environment)
    return 0 if all(each.state == "alive" for each in found) else FAILED


def version() -> str:
    """Return what `--version` prints: regfs, and what it would run with."""
    import platform as machine
    from importlib.util import find_spec

    parts = {
        "Python": machine.python_version(),
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "driver": "kernel (/dev/fuse)" if sys.platform == "linux" else "fusepy",
        "libfuse 2": "found" if _has_libfuse() else "not found; only --driver fusepy needs it",
        "isal": "found" if find_spec("isal") else "not found: gzip at a quarter of the speed",
    }
    return "\n".join([f"regfs {VERSION}", *(f"{name}: {value}" for name, value in parts.items())])


_VERBS = {
    "umount": umount_verb,
    "unpack": unpack_verb,
    "prefetch": prefetch_verb,
    "cache": cache_verb,
    "status": status_verb,
}


def _parse_verb(parser: Parser, arguments: Sequence[str], *, headings: Sequence[str] = ()) -> argparse.Namespace | None:
    """Return what was given to a verb, which also takes the options of *headings*; None where it was asked for help."""
    add_common(parser, headings)
    if {"-h", "--help"} & set(arguments):
        print(parser.format_help(), end="")
        return None
    given, unknown = parser.parse_known_intermixed_args(list(arguments))
    refuse_unknown(unknown, parser)
    return given


def _default_config(environment: Mapping[str, str]) -> Config:
    return Config(cache_dir=default_cache_dir(environment, is_root=os.geteuid() == 0))


def _config(given: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    import logging

    config = _with_words(_default_config(environment), given.words, sloppy=False)
    return replace(
        with_options(config, given.given),
        foreground=given.foreground or given.debug,
        debug=given.debug,
        log_level=logging.WARNING if given.quiet else logging.INFO,
    )


def _verb_config(given: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    """Return the Config of a verb, and let its log go to stderr: warnings, or everything with -d."""
    import logging

    from regfs.logs import start_logging

    start_logging(logging.DEBUG if given.debug else logging.ERROR, foreground=True, environment=environment)
    return with_options(_default_config(environment), given.given)


def _with_words(config: Config, words: Sequence[str], *, sloppy: bool) -> Config:
    from regfs.mount_words import complaint, parse_words

    for text in words:
        parsed = parse_words(text)
        for word in parsed.unknown:
            if not sloppy:
                raise complaint(word)
            _warn(f"{complaint(word)}; it is ignored")
        config = parsed.applied_to(config)
    return config


def _with_source(config: Config, source: str) -> Config:
    """Return *config* with SOURCE as its default registry; fstab's usual fillers mean the usual one."""
    if source in ("none", "regfs", "registry", "-"):
        return config
    by_name = {option.name: option for option in OPTIONS}
    return with_options(config, [(by_name["default-registry"], source.removeprefix("https://").rstrip("/"))])


def _has_libfuse() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libfuse.so.2")
    except OSError:
        return False
    return True


def _guarded(command: object) -> int:
    """Run *command*; turn errors into a line on stderr and an exit code."""
    assert callable(command)
    if not os.environ.get("PATH"):
        os.environ["PATH"] = FALLBACK_PATH  # systemd and mount(8) may leave it empty, and programs are to be found
    try:
        return int(command())
    except RegfsError as error:
        _warn(str(error))
        return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), FAILED)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return FAILED  # whoever read our output has enough of it


def _say(code: int, message: str) -> None:
    if code:
        _warn(message)
    elif message:
        first, *notes = message.split("\n")
        print(first, flush=True)
        for note in notes:
            _warn(note)


def _warn(message: str) -> None:
    print(f"regfs: {message}", file=sys.stderr, flush=True)


def _leave(code: int) -> NoReturn:
    """Exit at once: threads that wait for a registry must not hold up the end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass  # whoever read it is gone
    os._exit(code)
