"""Databases of packages: what counts as installed, and that no bytes make a parser fail."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regfs.model.packages import Package, apk_packages, dpkg_packages

STATUS = b"""Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b7
Description: GNU shell
 Version: of the text, not of the package

Package: gone
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok half-configured
Version: 1

Status: install ok installed
Version: 2

Package: base-files
Version: 12.4
"""


def test_dpkg_s_packages_are_those_that_are_installed() -> None:
    assert list(dpkg_packages(STATUS)) == [
        Package("deb", "bash", "5.2.15-2+b7", "amd64"),
        Package("deb", "base-files", "12.4", "-"),
    ]


def test_apk_s_packages() -> None:
    installed = b"C:Q1=\nP:musl\nV:1.2.5-r0\nA:x86_64\nF:lib\nR:ld-musl\n\nP:busybox\nV:1.36\nA:x86_64\n"
    assert [package[1:] for package in apk_packages(installed)] == [
        ("musl", "1.2.5-r0", "x86_64"),
        ("busybox", "1.36", "x86_64"),
    ]


PIECES = st.sampled_from(
    [b"Package:", b"Status: ", b"installed", b"P:", b"V:x", b"\n", b"\n\n", b"\t", b"\xff\x00", b" a"]
)


@given(st.lists(PIECES | st.binary(max_size=5), max_size=30).map(b"".join))
def test_whatever_the_bytes_are_each_package_is_one_line_of_four_words(content: bytes) -> None:
    for package in (*dpkg_packages(content), *apk_packages(content)):
        assert all(package)
        assert all("\n" not in field and "\t" not in field and field.isprintable() for field in package)
