"""What references pointed to when a registry was last asked."""

from __future__ import annotations

import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regfs.model.digest import Digest
from regfs.model.names import RepositoryName
from regfs.store.references.references import ListRecord, References, TagRecord

DEBIAN = RepositoryName("docker.io", "library/debian")
RECORD = TagRecord(Digest.of(b"index"), "application/vnd.oci.image.index.v1+json", 1234, 1_700_000_000.5)


def test_a_tag_is_remembered_across_mounts(tmp_path: Path) -> None:
    References(tmp_path / "names").keep_tag(DEBIAN, "12", RECORD)
    assert References(tmp_path / "names").tag(DEBIAN, "12") == RECORD


def test_a_tag_of_another_repository_is_another_tag(tmp_path: Path) -> None:
    references = References(tmp_path / "names")
    references.keep_tag(DEBIAN, "12", RECORD)
    assert references.tag(RepositoryName("ghcr.io", "library/debian"), "12") is None
    assert references.tag(DEBIAN, "13") is None


def test_a_deleted_tag_is_forgotten(tmp_path: Path) -> None:
    references = References(tmp_path / "names")
    references.keep_tag(DEBIAN, "12", RECORD)
    references.drop_tag(DEBIAN, "12")
    assert references.tag(DEBIAN, "12") is None


def test_what_was_visited_or_listed_is_known(tmp_path: Path) -> None:
    references = References(tmp_path / "names")
    references.keep_tag(DEBIAN, "12", RECORD)
    references.keep_listing("docker.io", "library/alpine", ["3.20"])
    references.repositories.keep_catalog("localhost:5000", ["demo/app", "demo/web"])
    assert references.repositories.components_below("docker.io", "") == {"library"}
    assert references.repositories.components_below("docker.io", "library") == {"alpine", "debian"}
    assert references.repositories.components_below("localhost:5000", "demo") == {"app", "web"}
    assert references.repositories.known_registries() == ["docker.io", "localhost:5000"]


@pytest.mark.parametrize("count", [1000, 20_000])
def test_a_look_up_beside_a_catalog_costs_the_same_however_many_names_it_has(tmp_path: Path, count: int) -> None:
    references = References(tmp_path / "names")
    references.repositories.keep_catalog("reg", [f"team{number % 50}/project{number}/image" for number in range(count)])
    steps = 0

    def count_steps() -> None:
        nonlocal steps
        steps += 1

    references._database.connection.set_progress_handler(count_steps, 1)
    assert references.repositories.leads_to_known("reg", "team7")
    assert references.repositories.leads_to_known("reg", "team7/project7")
    assert references.repositories.is_known("reg", "team7/project7/image")
    assert not references.repositories.leads_to_known("reg", "team")
    assert not references.repositories.leads_to_known("reg", "team7/project8")
    assert references.repositories.catalog_checked("reg") is not None
    assert steps < 1000  # of SQLite's machine


def test_what_is_below_a_path_are_the_next_components_of_all_that_is_known(tmp_path: Path) -> None:
    references = References(tmp_path / "names")
    names = [f"team/project{number}/image" for number in range(2000)]
    names += ["team", "team-a/x", "team.b", "team0", "team0/y", "teams/z", "t\u00e9am/q", "zz"]
    references.repositories.keep_catalog("reg", names)
    assert references.repositories.components_below("reg", "") == {name.partition("/")[0] for name in names}
    assert references.repositories.components_below("reg", "team") == {f"project{number}" for number in range(2000)}
    assert references.repositories.components_below("reg", "team/project7") == {"image"}
    assert references.repositories.components_below("reg", "team/project7/image") == set()
    assert references.repositories.components_below("other", "") == set()


def test_a_catalog_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    one, other = References(tmp_path / "names"), References(tmp_path / "names")
    one.repositories.keep_catalog("reg", [f"a{number}" for number in range(1200)])
    one.repositories.keep_catalog("elsewhere", ["kept"])
    other.repositories.keep_catalog("reg", ["a7", "b", "zz"])
    for references in (one, other):
        assert references.repositories.components_below("reg", "") == {"a7", "b", "zz"}
        assert references.repositories.components_below("elsewhere", "") == {"kept"}
    one.expire_all()
    assert other.repositories.catalog_checked("reg") == 0
    other.repositories.keep_catalog("reg", [])
    assert not one.repositories.leads_to_known("reg", "")


def test_two_daemons_that_list_a_catalog_at_once_lose_no_name(tmp_path: Path) -> None:
    names = [f"team{number}" for number in range(3000)]
    daemons = [References(tmp_path / "names") for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            list(pool.map(lambda daemon: daemon.repositories.keep_catalog("reg", names), daemons))
    assert daemons[0].repositories.components_below("reg", "") == set(names)


def test_a_manifest_is_known_only_where_it_was_shown(tmp_path: Path) -> None:
    references = References(tmp_path / "names")
    references.keep_manifest(DEBIAN, RECORD.digest, RECORD.media_type)
    assert references.manifest_type(DEBIAN, RECORD.digest) == RECORD.media_type
    assert references.manifest_type(RepositoryName("docker.io", "library/alpine"), RECORD.digest) == ""


def test_a_damaged_file_costs_the_memory_not_the_mount(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"not a database" * 100)
    references = References(tmp_path / "names")
    references.keep_tag(DEBIAN, "12", RECORD)
    assert references.tag(DEBIAN, "12") == RECORD


def test_a_damaged_file_is_made_anew_and_remembers_again(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"not a database" * 100)
    References(tmp_path / "names").keep_tag(DEBIAN, "12", RECORD)
    assert References(tmp_path / "names").tag(DEBIAN, "12") == RECORD


def test_what_is_expired_is_still_known_but_old(tmp_path: Path) -> None:
    references = References(tmp_path / "names")
    references.keep_tag(DEBIAN, "12", RECORD)
    references.keep_listing("docker.io", "library/debian", ["12"])
    references.expire_tags(DEBIAN, RECORD.digest)
    references.expire_listing("docker.io", "library/debian")
    tag, listing = references.tag(DEBIAN, "12"), references.listing("docker.io", "library/debian")
    assert tag == TagRecord(RECORD.digest, RECORD.media_type, RECORD.size, 0)
    assert listing == ListRecord(("12",), 0)


def test_two_daemons_on_one_file_see_what_the_other_remembers(tmp_path: Path) -> None:
    one, other = References(tmp_path / "names"), References(tmp_path / "names")
    one.keep_tag(DEBIAN, "12", RECORD)
    other.keep_tag(DEBIAN, "13", RECORD)
    assert one.known_tags(DEBIAN) == other.known_tags(DEBIAN) == ["12", "13"]


def test_a_file_that_another_process_has_locked_costs_the_memory_not_the_answer(tmp_path: Path) -> None:
    references = References(tmp_path / "names")
    references.keep_tag(DEBIAN, "12", RECORD)
    other = sqlite3.connect(tmp_path / "names", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert references.tag(DEBIAN, "12") is None
    other.execute("COMMIT")
    other.close()
    assert references.tag(DEBIAN, "12") == RECORD


def test_damaged_rows_are_nothing_that_is_known_and_no_missing_name(tmp_path: Path) -> None:
    references = References(tmp_path / "names")
    references.keep_tag(DEBIAN, "12", RECORD)
    references.keep_listing("docker.io", "library/debian", ["12"])
    database = sqlite3.connect(tmp_path / "names")
    with database:
        database.execute("UPDATE tags SET digest='sha256:damaged'")
        database.execute("UPDATE lists SET names='[damaged'")
    database.close()
    assert references.tag(DEBIAN, "12") is None
    assert references.listing("docker.io", "library/debian") is None


def test_a_memory_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    References(tmp_path / "names").keep_tag(DEBIAN, "12", RECORD)
    references = References(tmp_path / "names")
    database = sqlite3.connect(tmp_path / "names")
    with database:
        database.execute("DROP TABLE lists")
    database.close()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            references.keep_listing("docker.io", "library/debian", ["12"])
    assert len(caplog.records) == 1
    assert references.tag(DEBIAN, "12") == RECORD
