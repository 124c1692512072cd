"""The words of -o: ours, the kernel's, and those that mount(8) and systemd leave there."""

from __future__ import annotations

import pytest

from regfs.app.config import Config
from regfs.cli.mount_options import complaint, parse_words, split_words
from regfs.errors import InvalidOption


def applied(text: str) -> Config:
    words = parse_words(text)
    assert words.unknown == ()
    return words.applied_to(Config())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b", ["a", "b"]),
        (r"fsname=a\,b,c", ["fsname=a,b", "c"]),
        ('log_file="/a,b",c', ["log_file=/a,b", "c"]),
        (r"a\\,b", ["a\\", "b"]),
        (r"a\x", ["a\\x"]),
        ("a\\", ["a\\"]),
        ("", [""]),
    ],
)
def test_a_comma_may_be_part_of_a_word(text: str, words: list[str]) -> None:
    assert list(split_words(text)) == words


@pytest.mark.parametrize(
    "line",
    [
        "rw,dev,suid",
        "rw,noexec,nosuid,nodev,_netdev,nofail,user",
        "defaults,noauto,x-systemd.automount,x-systemd.idle-timeout=10min,X-mount.mkdir,comment=mine",
        "relatime,entry_timeout=1,attr_timeout=1,nonempty,auto_cache,subtype=regfs",
    ],
)
def test_what_mount_and_systemd_pass_is_taken(line: str) -> None:
    parse = parse_words(line)
    assert parse.unknown == ()
    config = parse.applied_to(Config())
    assert (config.allow_suid, config.allow_dev) == (False, False)


def test_every_long_option_is_a_word_in_both_spellings() -> None:
    assert applied("cache_size=1G,tag-ttl=5s,allow_other,offline") == Config(
        cache_size=1 << 30, tag_ttl_s=5, allow_other=True, offline=True
    )


def test_set_id_programs_and_devices_need_words_of_their_own() -> None:
    config = applied("suid,dev,allow_suid,allow_dev")
    assert (config.allow_suid, config.allow_dev) == (True, True)


def test_noexec_is_passed_on_and_exec_changes_nothing() -> None:
    assert applied("noexec,noatime,noexec").noexec
    assert not applied("exec,noatime,dirsync").noexec


def test_the_last_of_ro_and_rw_holds() -> None:
    assert applied("ro,nosuid").read_only
    assert not applied("ro,rw").read_only
    assert not applied("defaults").read_only
    words = parse_words("nosuid")
    assert words.applied_to(Config(read_only=True)).read_only


def test_fsname_is_what_mount_shows() -> None:
    assert applied(r"fsname=the\,lab").source == "the,lab"
    assert applied("default_registry=ghcr.io").source == "ghcr.io"


@pytest.mark.parametrize("text", ["offline=yes", "cache_size", "platform"])
def test_a_value_too_many_or_too_few_is_told(text: str) -> None:
    with pytest.raises(InvalidOption, match=text.partition("=")[0].replace("_", ".")):
        parse_words(text)


def test_an_unknown_word_is_named_with_the_nearest_one() -> None:
    assert parse_words("ro,cash_size=3").unknown == ("cash_size=3",)
    assert "cash_size" in str(complaint("cash_size=3"))
    assert "did you mean cache_size?" in str(complaint("cash_size=3"))
