"""Platforms: their spellings, and which entry of an index serves whom."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import InvalidOption, NotFound
from regfs.model.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from regfs.model.platform import Platform, candidates, choose, host_platform, is_attestation, parse_platform, runs


@dataclass(frozen=True)
class Entry:
    name: str
    platform: Platform | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    media_type: str = OCI_MANIFEST


def entry(platform: str, **more: object) -> Entry:
    """Return an entry with *platform* written exactly so."""
    return Entry(platform, Platform(*platform.split("/")), **more)  # type: ignore[arg-type]


def chosen(wanted: str, *entries: Entry) -> str:
    return choose(entries, parse_platform(wanted)).name


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AArch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("macos/arm64", "darwin/arm64"),
        ("linux/i686", "linux/386"),
    ],
)
def test_every_platform_has_one_normal_form(text: str, printed: str) -> None:
    assert str(parse_platform(text)) == printed
    assert parse_platform(text).normal() == parse_platform(text)


def test_what_a_platform_leaves_out_is_the_hosts() -> None:
    assert parse_platform("riscv64") == Platform(host_platform().os, "riscv64")
    assert parse_platform("arm/v6") == Platform(host_platform().os, "arm", "v6")
    assert parse_platform("freebsd").architecture == host_platform().architecture


def test_a_version_of_the_system_stands_in_brackets() -> None:
    assert parse_platform("windows(10.0.17763)/amd64") == Platform("windows", "amd64", os_version="10.0.17763")


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "linux/amd64/v2/x", "plan10", "linux/am d64", "linux/amd64\n", "linux(/x"]
)
def test_what_is_no_platform_is_an_invalid_option(text: str) -> None:
    with pytest.raises(InvalidOption):
        parse_platform(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("linux/amd46", "amd64"), ("linux/arm46/v8", "arm64"), ("linx/amd64", "linux"), ("amd46", "amd64"),
     ("linux/aarch", "aarch64")],
)  # fmt: skip
def test_a_mistyped_platform_is_refused_with_the_one_that_is_meant(text: str, meant: str) -> None:
    with pytest.raises(InvalidOption, match=f"did you mean {meant}"):
        parse_platform(text)


@pytest.mark.parametrize("text", ["linux/s390", "illumos/sparc64", "wasip1/wasm", "zos/s390x", "hurd/386", "linux/ppc"])
def test_a_rare_platform_is_a_platform(text: str) -> None:
    assert str(parse_platform(text)) == text


def test_a_machine_runs_what_its_platform_serves_and_what_says_nothing() -> None:
    wanted = parse_platform("linux/amd64")
    assert runs(wanted, Platform("linux", "386"))
    assert runs(wanted, Platform("linux", "x86_64"))
    assert runs(wanted, Platform("unknown", "unknown"))
    assert not runs(wanted, Platform("linux", "arm64", "v8"))
    assert not runs(wanted, Platform("linux", "amd64", "v3"))


def test_the_exact_platform_is_chosen_before_a_lower_one() -> None:
    entries = [entry("linux/arm/v5"), entry("linux/arm/v7"), entry("linux/arm/v6")]
    assert chosen("linux/arm/v7", *entries) == "linux/arm/v7"
    assert chosen("linux/arm/v6", *entries) == "linux/arm/v6"
    assert chosen("linux/arm/v8", *entries) == "linux/arm/v7"


def test_a_higher_variant_is_never_chosen() -> None:
    with pytest.raises(NotFound):
        chosen("linux/arm/v5", entry("linux/arm/v7"))
    with pytest.raises(NotFound):
        chosen("linux/amd64", entry("linux/amd64/v3"))


def test_arm64_is_v8_and_runs_32_bit_images_too() -> None:
    assert chosen("linux/arm64", entry("linux/arm/v7"), entry("linux/arm64/v8")) == "linux/arm64/v8"
    assert chosen("linux/arm64", entry("linux/arm/v6"), entry("linux/arm/v7")) == "linux/arm/v7"
    assert chosen("linux/arm64/v9", entry("linux/arm64/v8.6"), entry("linux/arm64/v8.5")) == "linux/arm64/v8.5"


def test_amd64_goes_down_to_386() -> None:
    assert list(map(str, candidates(parse_platform("linux/amd64/v3")))) == [
        "linux/amd64/v3",
        "linux/amd64/v2",
        "linux/amd64",
        "linux/386",
    ]


def test_of_two_equal_platforms_the_first_is_chosen() -> None:
    assert choose([Entry("a", Platform("linux", "amd64")), Entry("b", Platform("linux", "amd64"))],
                  parse_platform("linux/amd64")).name == "a"  # fmt: skip


def test_the_error_names_the_platforms_that_there_are() -> None:
    with pytest.raises(NotFound, match=r"linux/s390x .*linux/amd64, linux/arm64/v8"):
        chosen("linux/s390x", entry("linux/arm64/v8"), entry("linux/amd64"), entry("unknown/unknown"))


def test_f45_only_unknown_platforms_means_that_nothing_is_chosen() -> None:
    with pytest.raises(NotFound):
        chosen("linux/amd64", entry("unknown/unknown"), entry("unknown/unknown"))


def test_f45_an_attestation_is_never_chosen_whatever_platform_it_claims() -> None:
    attestation = entry("linux/amd64", annotations={"vnd.docker.reference.type": "attestation-manifest"})
    other = entry("linux/amd64", annotations={"vnd.docker.reference.type": "something-new"})
    assert is_attestation(attestation)
    with pytest.raises(NotFound):
        chosen("linux/amd64", attestation, other)


def test_artifacts_beside_images_are_never_chosen() -> None:
    soci = entry("linux/amd64", artifact_type="application/vnd.amazon.soci.index.v2+json")
    nydus = Entry("nydus", Platform("linux", "amd64", os_features=("nydus.remoteimage.v1",)))
    with pytest.raises(NotFound):
        chosen("linux/amd64", soci, nydus)


def test_an_image_whose_artifact_type_says_image_is_chosen() -> None:
    assert chosen("linux/amd64", entry("linux/amd64", artifact_type=OCI_CONFIG)) == "linux/amd64"


def test_windows_images_may_need_win32k() -> None:
    windows = Entry("w", Platform("windows", "amd64", os_version="10.0.17763.1879", os_features=("win32k",)))
    assert chosen("windows/amd64", windows) == "w"
    assert chosen("windows(10.0.17763)/amd64", windows) == "w"
    with pytest.raises(NotFound):
        chosen("windows(10.0.1776)/amd64", windows)


def test_f45_an_entry_without_a_platform_is_asked_what_its_config_says() -> None:
    entries = [Entry("a"), Entry("b")]
    told = {"a": Platform("linux", "s390x"), "b": Platform("linux", "amd64")}
    assert choose(entries, parse_platform("linux/amd64"), platform_of=lambda found: told[found.name]).name == "b"


def test_configs_are_not_asked_where_a_platform_says_enough() -> None:
    asked: list[str] = []

    def platform_of(found: Entry) -> Platform | None:
        asked.append(found.name)
        return None

    assert choose([Entry("a"), entry("linux/amd64")], parse_platform("linux/amd64"), platform_of=platform_of).platform
    assert asked == []


def test_an_index_inside_an_index_is_the_last_resort() -> None:
    nested = Entry("nested", media_type=OCI_INDEX)
    assert choose([nested, Entry("a")], parse_platform("linux/amd64"), platform_of=lambda _: None).name == "nested"
    assert chosen("linux/amd64", nested, entry("linux/amd64")) == "linux/amd64"


@given(st.text(max_size=40))
def test_any_text_is_a_platform_or_an_invalid_option(text: str) -> None:
    try:
        platform = parse_platform(text)
    except InvalidOption:
        return
    assert parse_platform(str(platform)) == Platform(platform.os, platform.architecture, platform.variant)
