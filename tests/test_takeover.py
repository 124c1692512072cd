"""What daemons of one mount leave to each other: options, and how long the holder waits before the next start."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from regfs.app.config import OPTIONS, Config, with_options
from regfs.daemon.takeover.holder_process import delay_s
from regfs.daemon.takeover.mount_description import MountDescription, description_as_text, parse_description
from regfs.errors import InvalidOption, MountFailure
from regfs.mount.mountpoint import OwnMount

MOUNT = OwnMount("/mnt/a b", "0:47")
TEXTS = ("", "1", "none", "me", "localhost:5000", "linux/arm64", "50%", "10G", "/a/b", "kernel", "1h", "3")


def given_by_every_option() -> Config:
    """Return a Config in which every option is set to a text that it takes."""
    config = Config()
    for option in OPTIONS:
        for text in TEXTS:
            try:
                config = with_options(config, [(option, text)])
            except InvalidOption:
                continue
            break
        else:
            raise AssertionError(f"--{option.name} takes none of {TEXTS}")
    return replace(config, log_file=Path("/a/log"), image="library/debian:12", fsname="regfs#x")


def test_the_next_daemon_gets_every_option() -> None:
    for config in (Config(), given_by_every_option()):
        description = MountDescription(config, MOUNT)
        assert parse_description(description_as_text(description)) == description


def test_an_option_of_a_later_release_is_left_out_and_one_that_is_missing_has_its_default() -> None:
    text = description_as_text(MountDescription(replace(Config(), tag_ttl_s=7.0), MOUNT))
    later = text.replace('"tag_ttl_s"', '"a_later_option": 3, "tag_ttl_s"').replace('"offline"', '"an_older_one"')
    assert parse_description(later).config == replace(Config(), tag_ttl_s=7.0)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"config": {}, "path": "/"}', '{"config": {"cache_dir": {"x": 1, "y": 2}}}']
)
def test_what_is_no_mount_is_refused(text: str) -> None:
    with pytest.raises(MountFailure):
        parse_description(text)


def test_the_first_two_starts_wait_for_nothing_and_the_next_ones_longer_and_longer() -> None:
    delays = [delay_s(short_lives) for short_lives in range(12)]
    assert delays[:4] == [0.0, 0.0, 0.1, 0.2]
    assert delays == sorted(delays)
    assert delays[-1] == 10.0


def test_every_kind_of_value_of_a_config_is_known() -> None:
    for field in fields(Config):
        value = getattr(given_by_every_option(), field.name)
        assert (
            value is None
            or isinstance(value, bool | int | float | str | Path | frozenset | tuple)
            or field.name == "platform"
        )
