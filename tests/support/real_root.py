"""A small but real root file system, made of files of this machine: no network and no compiler is needed.

Two layers. The base has programs, directories of the system's own Python, and every kind of entry that an archive can
hold; the second layer replaces, deletes and adds. Making device nodes and other owners needs root; an ordinary user
gets an image without them. Layers are written by GNU tar, as most images in the world are by some tar.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sysconfig
from pathlib import Path

from tests.support.hello import hello_program

# VFS_CAP_REVISION_2, effective; CAP_NET_BIND_SERVICE permitted: what `setcap cap_net_bind_service+ep` writes.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
_WHEN_NS = 1_600_000_000_123_456_789
_APPLETS = ("sh", "ls", "cat", "find", "stat", "sha256sum", "true", "id", "readlink")


def busybox() -> Path | None:
    """Return the static busybox of this machine, which runs in any root, or None."""
    found = shutil.which("busybox")
    return Path(found) if found else None


def write_base(root: Path) -> None:
    """Fill *root* with the base layer."""
    for directory in ("bin", "etc", "dev", "tmp", "var/lib/gone", "var/lib/opaque/deep", "usr/lib/python", "home/user"):
        (root / directory).mkdir(parents=True)
    (root / "hello").write_bytes(hello_program())
    (root / "hello").chmod(0o755)
    if program := busybox():
        shutil.copyfile(program, root / "bin/busybox")
        (root / "bin/busybox").chmod(0o755)
        for applet in _APPLETS:
            os.link(root / "bin/busybox", root / "bin" / applet)
    standard_library = Path(sysconfig.get_path("stdlib"))
    for package in ("json", "email", "importlib"):
        shutil.copytree(standard_library / package, root / "usr/lib/python" / package, symlinks=True)
    (root / "etc/os-release").write_text('NAME="a root of the tests"\n')
    (root / "etc/empty").touch()
    (root / "etc/replaced").write_text("in the base\n")
    (root / "etc/turns-into-a-directory").write_text("a file\n")
    (root / "etc/shadow").write_text("root:*:1:0:99999:7:::\n")
    (root / "etc/shadow").chmod(0o640)
    (root / "var/lib/gone/file").write_text("deleted above\n")
    (root / "var/lib/opaque/deep/file").write_text("hidden above\n")
    (root / "var/lib/big").write_bytes(b"".join(bytes([n % 251]) * 4096 for n in range(1500)))
    (root / "etc/name with spaces\tand\nlines").write_text("odd\n")
    with open(os.path.join(os.fsencode(root), b"etc/not-utf-8-\xff\xfe"), "wb") as file:
        file.write(b"bytes\n")
    os.symlink("os-release", root / "etc/link")
    os.symlink("/no/where", root / "etc/dangling")
    os.link(root / "etc/os-release", root / "etc/second-name")
    os.mkfifo(root / "var/lib/pipe")
    (root / "tmp").chmod(0o1777)
    (root / "bin/setuid").write_bytes(hello_program())
    (root / "bin/setuid").chmod(0o4755)
    os.setxattr(root / "etc/os-release", "user.note", b"with\0a zero byte")
    if os.getuid() == 0:
        os.mknod(root / "dev/null", 0o020666, os.makedev(1, 3))
        os.mknod(root / "dev/sda", 0o060660, os.makedev(8, 0))
        os.chown(root / "home/user", 1000, 1000)
        os.chown(root / "etc/shadow", 0, 42)
        os.setxattr(root / "bin/setuid", "security.capability", CAPABILITY)
    _set_times(root)


def write_second(root: Path) -> None:
    """Fill *root* with the second layer, markers of deletions as the image-spec stores them."""
    for directory in ("etc/turns-into-a-directory", "var/lib/opaque", "opt/new"):
        (root / directory).mkdir(parents=True)
    (root / "etc/replaced").write_text("in the second layer\n")
    (root / "etc/turns-into-a-directory/inside").write_text("a directory now\n")
    (root / "var/lib/.wh.gone").touch()
    (root / "var/lib/opaque/.wh..wh..opq").touch()
    (root / "var/lib/opaque/visible").write_text("only this\n")
    (root / "opt/new/file").write_text("new\n")
    _set_times(root)


def tar_of_directory(root: Path) -> bytes:
    """Return the tar of everything below *root*, by GNU tar with PAX headers and all extended attributes."""
    command = ["tar", "--format=pax", "--numeric-owner", "--sort=name", "--xattrs", "--xattrs-include=*"]
    command += ["-C", str(root), "-cf", "-", "."]
    return subprocess.run(command, check=True, capture_output=True).stdout


def real_layers(directory: Path) -> list[bytes]:
    """Return the two layers, made below *directory*."""
    tars = []
    for name, write in (("base", write_base), ("second", write_second)):
        root = directory / name
        root.mkdir()
        root.chmod(0o755)
        write(root)
        tars.append(tar_of_directory(root))
        shutil.rmtree(root)
    return tars


def _set_times(root: Path) -> None:
    # Deepest first, since setting a child's time leaves its parent's alone but making it did not.
    for number, (directory, names, files) in enumerate(os.walk(os.fsencode(root), topdown=False)):
        for name in (*files, *names, b"."):
            when = _WHEN_NS + number * 1_000_000_007
            os.utime(os.path.join(directory, name), ns=(when, when), follow_symlinks=False)
