"""`regfs setup [--undo]`: put what mount(8), shells, man(1) and systemd look for into place, and remove it again."""

from __future__ import annotations

import argparse
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from regfs.app.config import parse_path
from regfs.cli.arguments import Parser, add_common, add_format, verb_parser
from regfs.cli.exit_codes import FAILED
from regfs.cli.json_output import tell_json
from regfs.cli.manual_page import manual_page
from regfs.cli.terminal import tell, warn
from regfs.cli.verbs.completion import SCRIPTS
from regfs.errors import InvalidOption, NotFound
from regfs.process.user import home_directory, is_root_of_machine
from regfs.verbs.setup_files import Programs, Texts, wanted_files

_HELPER = Path("/sbin/mount.regfs")
# Below another prefix, root tries regfs, or has a second one: the machine keeps its helper of mount(8).
_PREFIXES_OF_SYSTEM = (Path("/usr"), Path("/usr/local"))
_PACKAGED_HELPER = Path("/usr/sbin/mount.regfs")  # /sbin is a link to /usr/sbin, which a package must not replace


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "setup",
        "Put what other programs look for into place: completion for bash, zsh and fish, the manual page, units of "
        "systemd and examples for fstab and automount; for root, in /usr and /usr/local, the helper of mount(8) too, "
        "/sbin/mount.regfs. Each file is named. A file that is there already, or was changed, stays as it is, and the "
        "exit code is 1.",
    )
    made.add_argument("--undo", action="store_true", help="remove exactly what regfs setup has put")
    made.add_argument(
        "--prefix", metavar="DIR", type=parse_path, help="where to put it (default: ~/.local, for root /usr/local)"
    )
    made.add_argument(
        "--root", metavar="DIR", type=parse_path,
        help="for packages: write below DIR, the future root of a system that has the programs in PREFIX/bin",
    )  # fmt: skip
    add_format(made)
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Put the files into place, or remove them, and print a line for each."""
    from regfs.verbs.setup import put, undo

    for_system = is_root_of_machine() or given.root is not None
    prefix = given.prefix or _default_prefix(environment, for_system=for_system)
    root = given.root or Path("/")
    notes: list[str] = []
    if given.undo:
        steps = undo(prefix, root)
    else:
        programs = _programs(prefix if given.root else None)
        notes = _notes(prefix, programs, environment, for_system=for_system) if given.root is None else []
        texts = Texts(SCRIPTS, manual_page())
        helper = None
        if for_system and (given.root is not None or prefix in _PREFIXES_OF_SYSTEM):
            helper = _HELPER if root == Path("/") else _PACKAGED_HELPER
        steps = put(wanted_files(prefix, programs, texts, helper=helper, for_system=for_system), prefix, root)
    for step in steps:
        if step.kind == "kept":
            warn(f"{step.path} stays as it is: {step.reason}")
        elif given.format != "json":
            tell(f"{step.kind} {step.path}")
    for note in notes:
        warn(f"note: {note}")
    if given.format == "json":
        files = [{"path": str(step.path), "kind": step.kind, "reason": step.reason} for step in steps]
        tell_json({"files": files, "notes": notes})
    return FAILED if any(step.kind == "kept" for step in steps) else 0


def _default_prefix(environment: Mapping[str, str], *, for_system: bool) -> Path:
    if for_system:
        return Path("/usr/local")
    home = home_directory(environment)
    if not home:
        raise InvalidOption("there is no home directory; --prefix DIR says where to put it")
    return Path(home, ".local")


def _programs(packaged: Path | None) -> Programs:
    """Return the two programs beside the one that runs; those of a package are in its *packaged*/bin."""
    if packaged is not None:
        return Programs(packaged / "bin/regfs", packaged / "bin/mount.regfs")
    called = Path(sys.argv[0]).absolute()  # not resolved: a link on PATH outlives the place that it leads to
    for directory in (called.parent, called.resolve().parent, Path(sysconfig.get_path("scripts"))):
        programs = Programs(directory / "regfs", directory / "mount.regfs")
        if all(program.is_file() for program in programs):
            return programs
    raise NotFound(f"the programs regfs and mount.regfs are not beside {called}; install regfs, as README says")


def _notes(prefix: Path, programs: Programs, environment: Mapping[str, str], *, for_system: bool) -> list[str]:
    """Return what is left to do for this user before all of it is found."""
    notes = []
    directory = programs.regfs.parent
    if not any(Path(each) == directory for each in environment.get("PATH", "").split(":") if each):
        notes.append(f'the shell finds regfs after: export PATH="{directory}:$PATH" in ~/.profile')
    if for_system and prefix not in _PREFIXES_OF_SYSTEM:
        notes.append(
            f"mount(8) and /etc/fstab need {_HELPER}, which a --prefix of its own does not put: "
            f"ln -s {programs.mount_regfs} {_HELPER}"
        )
    if not for_system:
        notes += [
            f"zsh looks there after: fpath=({prefix}/share/zsh/site-functions $fpath) in ~/.zshrc, before compinit",
            "mount(8) and /etc/fstab need /sbin/mount.regfs, which root puts: regfs setup as root",
        ]
    return notes
