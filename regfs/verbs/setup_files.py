"""The files that `regfs setup` puts into place, beside the program itself.

    /sbin/mount.regfs                             for mount(8); root's, where PREFIX is /usr or /usr/local
    PREFIX/share/bash-completion/completions/     completion for three shells
    PREFIX/share/zsh/site-functions/
    PREFIX/share/fish/vendor_completions.d/
    PREFIX/share/man/man1/, man8/                 regfs(1), and mount.regfs(8) that leads to it
    PREFIX/lib/systemd/{system,user}/             regfs@.service; for an ordinary user PREFIX/share/systemd/user/
    PREFIX/share/doc/regfs/examples/              a line for fstab, and an automount

PREFIX is /usr/local for root and ~/.local for others: shells, man(1) and systemd look into both. Used by setup.py.
Pure; any thread. Sources: systemd.unit(5), systemd.service(5), systemd.automount(5), manpath(1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from regfs.errors import InvalidOption

_UNIT = """\
# {source}
[Unit]
Description=Container registries at {where}
Documentation=man:regfs(1)
{after}
[Service]
Type=notify
NotifyAccess=main
# Not `mkdir -p` of all of it: that looks at what is there, and after a crash the mount is there, which nothing answers.
ExecStartPre=-/bin/sh -c 'mkdir -p "$$(dirname "$$0")"; mkdir "$$0" 2>/dev/null || :' {where}
ExecStart={program} --foreground {where}
ExecReload={program} refresh {where}
# systemd keeps the mount while the daemon starts again, and what is in it goes on.
FileDescriptorStoreMax=2
ExecStopPost=-/bin/sh -c '[ "$SERVICE_RESULT" != success ] || exec {program} umount --lazy --quiet {where}'
Restart=on-failure
RestartSec=2
# Where no thread is left that answers the kernel, the daemon is started again.
WatchdogSec=60
# While the mount is in use, a stop detaches it and waits for its users.
TimeoutStopSec=20

[Install]
WantedBy={wanted_by}
"""
_SYSTEM_UNIT_USE = "systemctl enable --now regfs@mnt-reg mounts on /mnt/reg; options are in /etc/regfs.toml"
_USER_UNIT_USE = "systemctl --user enable --now regfs@reg mounts on ~/reg; options are in ~/.config/regfs.toml"
_FSTAB = """\
# Lines for /etc/fstab. With x-systemd.automount the mount is made when it is first looked into.
docker.io  /mnt/reg  regfs  ro,nosuid,nodev,noauto,nofail,_netdev,x-systemd.automount,allow_other  0 0

# One image alone, as `regfs mount` mounts it:
# regfs#docker.io/library/debian:12  /mnt/debian  regfs  ro,_netdev,nofail  0 0
"""
_MOUNT = """\
# With mnt-reg.automount in /etc/systemd/system/: systemctl enable --now mnt-reg.automount
[Unit]
Description=Container registries at /mnt/reg
Documentation=man:regfs(1)

[Mount]
Type=regfs
What=docker.io
Where=/mnt/reg
Options=ro,nosuid,nodev,_netdev,allow_other
"""
_AUTOMOUNT = """\
[Unit]
Description=Container registries at /mnt/reg, when they are looked into
Documentation=man:regfs(1)

[Automount]
Where=/mnt/reg
TimeoutIdleSec=10min

[Install]
WantedBy=multi-user.target
"""


class Programs(NamedTuple):
    """The absolute paths of the two programs, as they are called once everything is in place."""

    regfs: Path
    mount_regfs: Path


class Texts(NamedTuple):
    """What the command line knows of itself: scripts of completion by shell, and the manual page as roff."""

    completion: dict[str, str]
    manual_page: str


class Wanted(NamedTuple):
    """One file as it must be: its absolute path, and its text, or the target of a symbolic link."""

    path: Path
    text: str = ""
    target: str = ""


def wanted_files(
    prefix: Path, programs: Programs, texts: Texts, *, helper: Path | None, for_system: bool
) -> list[Wanted]:
    """Return all files below *prefix*, with the units *for_system* or for one user, and the *helper* of mount(8).

    Raises InvalidOption.
    """
    share, examples = prefix / "share", prefix / "share/doc/regfs/examples"
    files = [
        Wanted(share / "bash-completion/completions/regfs", texts.completion["bash"]),
        Wanted(share / "zsh/site-functions/_regfs", texts.completion["zsh"]),
        Wanted(share / "fish/vendor_completions.d/regfs.fish", texts.completion["fish"]),
        Wanted(share / "man/man1/regfs.1", f"{texts.manual_page}\n"),
        Wanted(share / "man/man8/mount.regfs.8", ".so man1/regfs.1\n"),
        *_units(prefix, programs.regfs, for_system=for_system),
        Wanted(examples / "fstab", _FSTAB),
        Wanted(examples / "mnt-reg.mount", _MOUNT),
        Wanted(examples / "mnt-reg.automount", _AUTOMOUNT),
    ]
    if helper is not None:
        files.append(Wanted(helper, target=str(programs.mount_regfs)))
    return files


def _units(prefix: Path, program: Path, *, for_system: bool) -> Iterator[Wanted]:
    word = _word_of_unit(program)
    user = _UNIT.format(source=_USER_UNIT_USE, where="%h%f", after="", program=word, wanted_by="default.target")
    if not for_system:
        yield Wanted(prefix / "share/systemd/user/regfs@.service", user)
        return
    yield Wanted(prefix / "lib/systemd/user/regfs@.service", user)
    system = _UNIT.format(
        source=_SYSTEM_UNIT_USE, where="%f", after="After=network.target\n", program=word, wanted_by="multi-user.target"
    )
    yield Wanted(prefix / "lib/systemd/system/regfs@.service", system)


def _word_of_unit(program: Path) -> str:
    """Return *program* as a word of ExecStart=, in which % and $ have a meaning. Source: systemd.service(5)."""
    text = str(program)
    if set(text) & set("\"'\\\n"):
        raise InvalidOption(f"{text}: systemd takes no program with a quote, backslash or line break in its path")
    text = text.replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if " " in text else text
