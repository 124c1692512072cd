"""Options: what texts mean, and what is said where they mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from regfs.app.config import (
    OPTIONS,
    SITE_CACHE,
    Config,
    default_cache_dir,
    option_named,
    with_options,
)
from regfs.app.quantities import parse_duration, parse_size
from regfs.errors import InvalidOption
from regfs.model.cache_limits import MinFree
from regfs.model.platform import Platform, host_platform


def configured(name: str, *texts: str) -> Config:
    option = option_named(name)
    assert option is not None
    return with_options(Config(), [(option, text) for text in texts])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10GiB", 10 << 30),
        ("10G", 10 << 30),
        ("10gb", 10 << 30),
        ("1.5 M", 3 << 19),
        ("2t", 2 << 40),
        (" 7k ", 7 << 10),
    ],
)
def test_sizes_are_read_in_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "G", "10X", "1e3", "1_000", "١", "10 GiB GiB", "9999999P"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption):
        parse_size(text)


def test_a_cache_of_a_few_bytes_was_meant_to_have_a_unit() -> None:
    """`--cache-size 10` was ten bytes, and every `ls` of a rootfs ENOSPC."""
    for text in ("10", "1", "67108863"):
        with pytest.raises(InvalidOption, match=f"did you mean {text}G"):
            configured("cache-size", text)
    assert [configured("cache-size", text).cache_size for text in ("0", "10k", "67108864", "10G")] == [
        0, 10 << 10, 64 << 20, 10 << 30,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("250ms", 0.25), ("5m", 300), ("5min", 300), ("1.5h", 5400), ("0", 0)],
)
def test_durations_are_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "3x", "1e3", "inf", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption):
        parse_duration(text)


def test_what_stays_free_is_a_size_or_a_share() -> None:
    assert configured("min-free", "20G").min_free == MinFree(size=20 << 30)
    assert configured("min-free", "15%").min_free == MinFree(share=0.15)
    for wrong in ("100%", "-1%", "x", "10", "%"):
        with pytest.raises(InvalidOption, match="min-free"):
            configured("min-free", wrong)


def test_an_age_has_a_unit_and_is_not_shorter_than_a_fetch() -> None:
    assert configured("cache-age", "30d").cache_age_s == 30 * 86400
    for wrong in ("30", "5s", "0", "old"):
        with pytest.raises(InvalidOption, match="cache-age"):
            configured("cache-age", wrong)


def test_an_error_names_the_option() -> None:
    with pytest.raises(InvalidOption, match=r"cache-size: 'much' is not a size"):
        configured("cache-size", "much")


def test_options_are_found_in_both_spellings() -> None:
    assert option_named("cache_size") is option_named("cache-size") is not None
    assert option_named("cash-size") is None


def test_every_option_changes_the_configuration() -> None:
    texts = {
        "driver": "fusepy",
        "default-registry": "ghcr.io",
        "platform": "linux/arm64",
        "tag-ttl": "1s",
        "timeout": "1s",
        "connections": "1",
        "rest-from": "50%",
        "insecure-registry": "lab:5000",
        "cache-dir": "/elsewhere",
        "cache-size": "1G",
        "min-free": "2G",
        "cache-age": "30d",
        "scrub": "7d",
        "log-file": "/elsewhere/log",
        "owner": "me",
        "policy": "none",
        "trusted-root": "/elsewhere/root.json",
    }
    for option in OPTIONS:
        assert with_options(Config(), [(option, texts.get(option.name, ""))]) != Config(), option.name


def test_the_last_of_two_values_holds() -> None:
    assert configured("tag-ttl", "1s", "2s").tag_ttl_s == 2


def test_insecure_registries_add_up_and_may_be_networks() -> None:
    assert configured("insecure-registry", "lab:5000", "10.0.0.0/8").insecure_registries == {"lab:5000", "10.0.0.0/8"}


def test_an_insecure_registry_with_a_scheme_is_told_without_it() -> None:
    """`--insecure-registry http://lab:5000` was no IPv4 or IPv6 network."""
    with pytest.raises(InvalidOption, match=r"leave out http://, as in lab:5000$"):
        configured("insecure-registry", "http://lab:5000/")


def test_the_hubs_other_names_are_the_hub() -> None:
    assert configured("default-registry", "index.docker.io").default_registry == "docker.io"


def test_connections_are_a_number_up_to_what_one_host_gets_or_as_many_as_help() -> None:
    assert [configured("connections", text).connections for text in ("auto", "1", "6")] == [None, 1, 6]
    for text in ("0", "7", "-1", "many", "", "1.5", "٣"):
        with pytest.raises(InvalidOption, match="connections: "):
            configured("connections", text)


def test_a_share_is_a_percentage() -> None:
    assert [configured("rest-from", text).rest_from for text in ("1%", "50", "100%")] == [0.01, 0.5, 1.0]
    for text in ("0", "0%", "101%", "", "%", "a third", "33.3%", "-1"):
        with pytest.raises(InvalidOption, match="rest-from: "):
            configured("rest-from", text)


@pytest.mark.parametrize("text", ["https://ghcr.io", "ghcr.io/owner", "", "a b"])
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption):
        configured("default-registry", text)


def test_platforms_are_read_and_local_is_this_machine() -> None:
    assert configured("platform", "linux/arm/v7").platform == Platform("linux", "arm", "v7")
    assert configured("platform", "local").platform == host_platform()


def test_an_unknown_driver_is_told_the_nearest_one() -> None:
    with pytest.raises(InvalidOption, match="did you mean fusepy"):
        configured("driver", "fuse-py")


def test_relative_paths_count_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configured("cache-dir", "cache").cache_dir == tmp_path / "cache"


@pytest.mark.parametrize(
    ("home", "xdg_cache_home", "is_root", "expected"),
    [
        ("/home/ann", None, False, Path("/home/ann/.cache/regfs")),
        ("/home/ann", "/big/cache", False, Path("/big/cache/regfs")),
        ("/home/ann", "relative", False, Path("/home/ann/.cache/regfs")),
        ("/root", None, True, SITE_CACHE),
        ("/root", "/big/cache", True, Path("/big/cache/regfs")),
        ("", None, False, SITE_CACHE),
    ],
)
def test_the_cache_is_where_the_user_keeps_caches(
    home: str, xdg_cache_home: str | None, is_root: bool, expected: Path
) -> None:
    environment = {} if xdg_cache_home is None else {"XDG_CACHE_HOME": xdg_cache_home}
    assert default_cache_dir(environment, home=home, is_root=is_root) == expected
