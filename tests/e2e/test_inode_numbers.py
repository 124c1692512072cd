"""What programs make of st_ino that drop bits of it, or that compare it."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MountRegfs, missing
from tests.e2e.conftest import Demo
from tests.support.images import BuiltImage, directory, file, hardlink, image_of, layer
from tests.support.mounted import Mounted
from tests.support.push import Pusher

# Calls stat and getdents of 32 bits, as i386 programs do that know no large files: EOVERFLOW where a number has more.
STAT_AND_LIST = """
static int call(int n, int a, int b, int c) {
    int r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory"); return r;
}
char buffer[65536];
void _start(void) {
    int r = call(106, (int)"a/f0", (int)buffer, 0);
    if (r >= 0) r = call(141, call(5, (int)"a", 0x10000, 0), (int)buffer, sizeof buffer);
    call(1, r < 0 ? -r : 0, 0, 0);
}
"""


def linked(text: str) -> BuiltImage:
    """Return an image of three layers with the same rows, each file with a second name."""
    layers = []
    for top in "abc":
        files = [file(f"{top}/f{n}", f"{text} {top} {n}\n".encode()) for n in range(5)]
        layers.append(layer(directory(top), *files, *(hardlink(f"{top}/g{n}", f"{top}/f{n}") for n in range(5))))
    return image_of(*layers)


@pytest.fixture(scope="module")
def pushed(demo: Demo) -> str:
    """Push two images, `numbers/app:1` and `:2`, whose files differ in content alone; return the registry's address."""
    for tag in ("1", "2"):
        Pusher(demo.url).image("numbers/app", tag, linked(f"image {tag}"))
    return demo.address


@pytest.fixture
def app(mount_regfs: MountRegfs, driver: str, pushed: str) -> Path:
    """The directory of `numbers/app` in a mount by each of the drivers."""
    return mount_regfs("--driver", driver, "--default-registry", pushed).path / "numbers/app"


def walked(top: Path) -> Iterator[tuple[str, int]]:
    """Yield the path below *top* and the inode number of everything, which listings and stat(2) tell alike."""
    yield ".", os.lstat(top).st_ino
    for entry in os.scandir(top):
        found = os.lstat(entry.path)
        assert entry.inode() == found.st_ino, entry.path
        yield entry.name, found.st_ino
        if entry.is_dir(follow_symlinks=False):
            for name, number in walked(Path(entry.path)):
                yield f"{entry.name}/{name}", number


def different(one: Path, other: Path) -> list[str]:
    """Return the files of *one* that have another content in *other*."""
    names = [f"{top}/{kind}{n}" for top in "abc" for kind in "fg" for n in range(5)]
    return [name for name in names if not filecmp.cmp(one / name, other / name, shallow=False)]


def test_archives_that_keep_some_bits_of_inode_numbers_have_each_file_s_own_content(app: Path, tmp_path: Path) -> None:
    rootfs = app / "1/rootfs"
    for name, write, read in (
        ("cpio", "find . | cpio --quiet -o -H newc", "cpio --quiet -id"),
        ("bsdtar", "bsdtar -cf - .", "bsdtar -xf -"),
        ("tar", "tar -cf - .", "tar -xf -"),
    ):
        if shutil.which(name) is None:
            missing(f"{name} is not installed")
        unpacked = tmp_path / name
        unpacked.mkdir()
        subprocess.run(f"(cd {rootfs} && {write}) | (cd {unpacked} && {read})", shell=True, check=True)
        assert different(rootfs, unpacked) == [], name
        links = {os.lstat(unpacked / "a" / each).st_ino for each in ("f0", "g0")}
        assert len(links) == 1, name


def test_numbers_tell_files_and_images_apart_and_links_are_equal(app: Path) -> None:
    one, two = dict(walked(app / "1/rootfs")), dict(walked(app / "2/rootfs"))
    assert not set(one.values()) & set(two.values())
    for numbers in (one, two):
        files = {name: number for name, number in numbers.items() if not name.endswith(".") and "/" in name}
        assert len(files) == 30
        for same in (lambda number: number, lambda number: number & 0xFFFFFFFF, float):
            assert len({same(number) for number in files.values()}) == 15
        assert all(files[f"{top}/f{n}"] == files[f"{top}/g{n}"] for top in "abc" for n in range(5))
        assert max(numbers.values()) < 1 << 53


def test_gnu_diff_finds_each_file_that_differs_between_two_images(app: Path) -> None:
    done = subprocess.run(["diff", "-rq", app / "1/rootfs", app / "2/rootfs"], capture_output=True, text=True)
    assert len([line for line in done.stdout.splitlines() if line.endswith("differ")]) == 30, done.stdout


def test_numbers_are_the_same_after_a_remount_in_another_mount_and_by_digest(
    mount_regfs: MountRegfs, driver: str, pushed: str, tmp_path: Path
) -> None:
    def mount(driver: str) -> Mounted:
        return mount_regfs("--driver", driver, "--default-registry", pushed, cache=tmp_path / "shared")

    def numbers(mount: Mounted, tag: str) -> dict[str, int]:
        return dict(walked(mount.path / f"numbers/app/{tag}/rootfs"))

    first = mount(driver)
    one, two = numbers(first, "1"), numbers(first, "2")
    beside = mount("kernel")
    assert (numbers(beside, "2"), numbers(beside, "1")) == (two, one)
    digest = (beside.path / "numbers/app/1/digest").read_text().strip()
    assert numbers(beside, digest) == one
    first.unmount()
    again = mount(driver)
    assert (numbers(again, digest), numbers(again, "2")) == (one, two)


def test_with_inode32_a_program_of_32_bits_can_stat_and_list(
    mount_regfs: MountRegfs, driver: str, pushed: str, tmp_path: Path
) -> None:
    rootfs = (
        mount_regfs("--driver", driver, "--default-registry", pushed, "-o", "inode32").path / "numbers/app/1/rootfs"
    )
    numbers = dict(walked(rootfs))
    assert all(1 < number < 1 << 32 for number in numbers.values())
    (tmp_path / "program.c").write_text(STAT_AND_LIST)
    build = "gcc -m32 -nostdlib -static -ffreestanding -fno-stack-protector -fno-pie -no-pie -O1 -o program program.c"
    if subprocess.run(build, shell=True, cwd=tmp_path, capture_output=True).returncode == 0:
        assert subprocess.run([tmp_path / "program"], cwd=rootfs).returncode == 0
