"""A user name and a password in what was typed: no message repeats them."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest

from regfs.daemon.logs import EncodableFormatter, JournalFormatter, PlainFormatter
from regfs.errors import InvalidName, RegistryUnavailable
from regfs.model.names import canonical_registry, parse_reference, parse_version
from regfs.model.userinfo import reference_without_userinfo, without_userinfo
from regfs.telemetry.journal import Journal
from regfs.telemetry.stats import Stats
from tests.support.mounted import run_regfs

WITH = [
    "bob:hunter2@registry.example/app",
    "bob:hunter2@registry.example",
    "bob:hunter2@localhost/app:1",
    "bob:hunter2@localhost:5000/app:1",
    "bob:hunter2@host/app",
    "bob:hunter2@2026-11-01/app",
    "bob:hunter2@registry.example/app@sha256:" + "0" * 64,
    "bob:p@hunter2@registry.example/app",
    "bob:p/hunter2@registry.example/app",
    "docker://bob:hunter2@registry.example/app",
    "https://bob:hunter2@registry.example/app",
    "https://hunter2@registry.example/app",
]
WITHOUT = [
    "debian:12",
    "debian@sha256:" + "0" * 64,
    "debian:12@sha256-" + "0" * 64,
    "localhost:5000/app:12@sha256:" + "0" * 64,
    "localhost:5000/app@440129be81b2",
    "registry.example:5000/app@latest",
    "debian:12@440129be81b2",
    "debian@12.1",
    "registry.example:5000/app:12@2026-11-01T00:00Z",
    "debian:12@2026-11-01",
    "debian:12@latest",
    "https://registry.example/app@sha256:00",
    "/mnt/reg/library/debian/@sha256-00/rootfs",
]


@pytest.mark.parametrize("text", WITH)
def test_a_message_repeats_no_password_that_was_typed(text: str) -> None:
    for message in (text, f"{text!r} is not a repository", f"/mnt/reg/{text}: no such file", f"SOURCE={text}, so"):
        assert "hunter2" not in without_userinfo(message)
        assert "***@" in without_userinfo(message)


@pytest.mark.parametrize("text", WITHOUT)
def test_a_digest_behind_a_tag_is_no_password(text: str) -> None:
    assert without_userinfo(f"cannot read {text!r}: no") == f"cannot read {text!r}: no"
    assert reference_without_userinfo(text) is None


@pytest.mark.parametrize("text", [*WITH, "bob:a hunter2@registry.example/app", "hunter2@registry.example/app"])
def test_a_reference_with_a_password_is_refused_by_that_reason_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidName, match="has a user name or a password") as caught:
        parse_reference(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("parse", [canonical_registry, parse_version])
def test_a_name_in_the_mount_with_a_password_is_no_name_and_is_not_repeated(parse: object) -> None:
    assert callable(parse)
    for text in ("bob:hunter2@registry.example", "bob:$hunter2@localhost:5000"):
        with pytest.raises(InvalidName) as caught:
            parse(text)
        assert "hunter2" not in str(caught.value)


def test_neither_the_journal_nor_a_log_line_repeats_a_password(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(Stats())
    with caplog.at_level(logging.WARNING):
        journal.record("LOOKUP /bob:hunter2@registry.example/app", RegistryUnavailable("no"))
    assert "***@registry.example/app" in journal.text()
    assert "hunter2" not in journal.text() + caplog.text
    record = logging.makeLogRecord({"msg": "%s is odd", "args": ("bob:hunter2@registry.example/app",)})
    for kind in (PlainFormatter, JournalFormatter, EncodableFormatter):
        assert kind("%(message)s").format(record).endswith("***@registry.example/app is odd")


@pytest.mark.parametrize("text", ["bob:hunter2@registry.example/app", "https://bob:hunter2@127.0.0.1:1/app:1"])
@pytest.mark.parametrize(
    "words",
    ["unpack --offline *", "prefetch --offline *", "prefetch --offline --json *", "cache rm *", "umount *", "status *",
     "refresh *", "path --mount * x", "*", "* /mnt", "--default-registry * /mnt",
     "--insecure-registry * /mnt", "-o * /mnt", "help *", "--platform * /mnt", "unpack x --*"],
)  # fmt: skip
def test_no_verb_repeats_a_password_that_was_typed(text: str, words: str, tmp_path: Path) -> None:
    done = run_regfs(*words.replace("*", text).split(), home=tmp_path)
    assert done.returncode not in (0, -signal.SIGKILL)
    assert "hunter2" not in done.stdout + done.stderr
    assert "***@" in done.stdout + done.stderr
