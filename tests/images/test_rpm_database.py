"""rpm's database of SQLite: the headers are those that rpm 4.18 wrote for two packages."""

from __future__ import annotations

import base64
import sqlite3
import zlib
from collections.abc import Sequence
from contextlib import closing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.errors import BadContent
from regfs.images.reports.rpm_database import rpm_packages
from regfs.model.packages import Package, rpm_package
from tests.support.images import directory, file, image_of, layer
from tests.support.served import Served

PLAIN = zlib.decompress(
    base64.b64decode(
        "eNpNlE1rFDEYxzPbVauoVCy1Sg899LBFZkhmMi8RQaQi9qD2UKWiIMlMsg7dN3bb0opIDx5EvHnxAyj4MTz1SwieFK34ehEP2prZ/Kvd5Zknvz"
        "yvyT47hJAGIbWnhJALVg4R4m1bPWalsDJK3McjZOSj1Qet1MDb4FHwJ/Bx8GerD1sZB38BT4C/Wl23Mgn+hvgp8A/Yp8E/YZ8B/0K+BvgP7By8"
        "Az7nuD4Ovgg+hd5vuzPVJ1Gv53T9NOyb4DPgD+CGy+cdRL4lt++NId8t5+9NghX8KfwLcArW4PNgA97rtwWec3zyGeotgbdgvwN+h/oK/B7+L8"
        "DbsL9y7Hmw/wYfcPNQ/dzVPHjHXP7aGOwnwAL3/d3F1x6g3wnwJrgJfgS+B35MhofqtWTZIfRhP2eEBbolyIb9Lh9982St7Ybw6vwiudEZ9HRe"
        "mlIXpFV2VtfJepbcTbgL94fh/jA8GPTzoN9rI/Hw2bDOfsJnhw0c2S/WsVWqxly33evrwUAXl8uWvibbejBLYKt2LpVNPVj5v7cgN1pdOXQeXJ"
        "FreqGvTbn+z7xYtgo937mp+4Oy27FhUUAD7jPCgySgQ+2ejO4tsoDiP1fN2ui+A5H9a/96OO03Sd4ru6R5v+wRgYvwC61K2fHd5QzzrK4YPyPS"
        "REKznAlpeJpJbVJJI6VFpo0UhVBShmFmlDAi0lHGwyIpUsW4ZDyJJY+FyxVGBeVhqLjR0rqnKdNZGqacKRWlNBVURXlB4yjT0iiesDCKdBZSlX"
        "EVpzKsZty9aHZ3dzBY1RiIrde7zzeZfjsVzZxdfknnizgTSmjBQ9tvVCSaJrHKlYxjwzkPU51yLWOek1woynjMZCxtPcVpkamkMFJltqTmNImS"
        "WJjQBsUsSlRoDIvTWOqc5ZktUL0sqhmzqprbkWr9F6w90+Q="
    )
)
HELLO = zlib.decompress(
    base64.b64decode(
        "eNpNlE1r1UAUhif3tlq1BbVFa3FRUKQFE5KZSTJRUKFVKvjRhYKuZCaZuTeY+8G9banFlUu3bv0BbgR/ggvRP+BOBBcVWj+ri6JgWyfNKzVwcv"
        "LMe+acmclJCCHThNTmCSEXre0nxHlu/WFrmbUhUl0OIfU16/dZq4HXwcPgT+Cj4M/WD1gbA3+x/oC1cfBX8AT4G+JPgr8j3yT4B/TT4E3oU+Bf"
        "yHcWvAVdgLfBFyoeGANfBh/Hfu+Bx1GvsFa3jyegL4MnwG/AU8j3HvPvYP4q+C7i18AK8T/BGfg3WIO3waZipw4uwIMVjz6p6jk4v9HX0HF+o6"
        "tVfecM+CPim+B16EXFjgP9JXgQ/fGq6g9nBPnfQj8C3sJ5b1Tza5ew3mPgWXADPAdugq+VPEOauig6bpErEnjUY4SXfVhbtsd/f/jd46VW1ZjX"
        "r94it9v9rk5zk+uMFHl7cZm0O7KXNvdSuLspXO71e6nX67b+S14VP/jPrGhHp2Y6rW5P9/s6u5IX+oZs6f40gVaOzOYN3V/YG5uXD4qO3A3uz8"
        "klPd/TJl+eJszzPe4GhHuR5+/66h4Izy9LD9FzWBpxb9JJt0HSbt4hjZW8SxJsw820ymXbrbZWXUOLC8YVRBqW6CANEml4LKQ2sfSZ0onQRiZZ"
        "oqSkVBiVmIRpJjjNoixWAZcBj0LJw6TKRVnmc0oVN1ra8DgOtIhpzAOlWOzHia9YmvkhE1oaxaOAMqYF9ZXgKowlLfu0+nns7Gxt4OdhX+XI2Q"
        "/nH704tfS0/kwe+rM5u5IGLIu4ysI4pamJuYi0EhGVdm3KhH4UmZQbbhgJU64ZM0kaKiYCP8wiwbMwipNE04hxnhkWBjT0meZJFKQi8lO7Qk19"
        "aRKTmcBWL3vEuoflt1k+/wW3AMgF"
    )
)
TABLE = "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS hnum, i AS blob FROM n"


def database(*headers: bytes, schema: Sequence[str] = (TABLE,)) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in schema:
            connection.execute(statement)
        if headers:
            connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(each,) for each in headers])
        connection.commit()
        return connection.serialize()


WHOLE = database(PLAIN, HELLO)


def test_epoch_version_release_and_architecture_are_those_that_rpm_tells() -> None:
    assert list(rpm_packages(WHOLE)) == [
        Package("rpm", "plain", "0~rc1-1.el9", "x86_64"),
        Package("rpm", "hello-lib", "2:1.2.3-4", "noarch"),
    ]


def test_a_database_that_was_written_with_a_journal_is_read_too() -> None:
    assert len(list(rpm_packages(WHOLE[:18] + b"\2\2" + WHOLE[20:]))) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"SQLite format 3\0",
        WHOLE[:5000],
        database(schema=("CREATE TABLE Other (a)", "CREATE TABLE Packages (blob)"))[:4096],
        database(schema=(f"CREATE VIEW Packages AS {ENDLESS}",)),
        database(schema=("CREATE TABLE Packages (hnum, other, blob AS (zeroblob(1000000000)))",)),
        database(schema=("CREATE TABLE packages (hnum)",)),
    ],
    ids=["empty", "a header", "cut off", "cut off in the schema", "an endless view", "a computed column", "no blob"],
)
def test_what_rpm_has_not_written_is_refused(content: bytes) -> None:
    with pytest.raises(BadContent):
        list(rpm_packages(content))


def test_headers_that_are_none_are_passed_over() -> None:
    nameless = b"\0\0\0\0\0\0\0\0"
    found = list(rpm_packages(database(b"", nameless, b"\xff" * 100, HELLO[:200], HELLO)))
    assert [package.name for package in found] == ["hello-lib"]


@settings(max_examples=200)
@given(st.integers(0, len(PLAIN) - 1), st.binary(max_size=4))
def test_a_header_with_wrong_bytes_is_a_package_of_one_line_or_none(at: int, wrong: bytes) -> None:
    package = rpm_package(PLAIN[:at] + wrong + PLAIN[at + len(wrong) :])
    assert package is None or (all(package) and all(field.isprintable() and "\t" not in field for field in package))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4))
def test_a_database_with_wrong_bytes_is_read_or_refused(changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(WHOLE)
    for at, wrong in changes:
        content[at : at + len(wrong)] = wrong
    with suppress(BadContent):
        for package in rpm_packages(bytes(content)):
            assert all(package)


def test_packages_of_an_image_has_those_of_rpm_and_names_a_database_that_it_does_not_read(served: Served) -> None:
    old, other = directory("var/lib/rpm"), directory("usr/lib/sysimage/rpm")
    served.push(
        "app",
        "1",
        image_of(
            layer(old, file("var/lib/rpm/Packages", b"x"), other, file("usr/lib/sysimage/rpm/rpmdb.sqlite", WHOLE))
        ),
    )
    served.push("app", "2", image_of(layer(other, file("usr/lib/sysimage/rpm/rpmdb.sqlite", WHOLE[:5000]))))
    shown = served.show()
    assert shown.read("app/1/packages").decode().splitlines() == [
        "rpm\thello-lib\t2:1.2.3-4\tnoarch",
        "rpm\tplain\t0~rc1-1.el9\tx86_64",
        "# var/lib/rpm/Packages of rpm is not read here: rpm --dbpath COPY -qa does, with a copy of that directory, "
        "in which it may write",
    ]
    assert (
        "# usr/lib/sysimage/rpm/rpmdb.sqlite of rpm is not read: it cannot be read"
        in shown.read("app/2/packages").decode()
    )
