"""Names: which first component is a registry, and what a reference means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import InvalidName
from regfs.model.digest import Digest
from regfs.model.names import (
    Reference,
    RepositoryName,
    canonical_registry,
    is_attachment_tag,
    is_registry,
    is_repository_component,
    is_tag,
    parse_reference,
    parse_repository,
    registry_named,
    repository_at,
)

HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "localhost:5000",
        "ghcr.io",
        "127.0.0.1:5000",
        "host:1",
        "Host",
        "[::1]",
        "[fe80::1]:5000",
        "xn--7o8h.la",
    ],
)
def test_a_host_with_a_dot_a_colon_or_an_upper_case_letter_is_a_registry(name: str) -> None:
    assert is_registry(name)


@pytest.mark.parametrize(
    "name",
    [
        "library",
        "debian",
        ".git",
        ".Trash-0",
        "a..b",
        "-a.b",
        "a.b-",
        "a_b.c",
        "example.com.",
        "https://ghcr.io",
        "fc00::1:5000",
        "[::ffff:127.0.0.1]",
        "[fe80::1%eth0]",
        "[:::::]",
        "[]",
        "host:",
        "host:0",
        "host:65536",
        "host:999999",
        "host:5000\n",
        "ghcr.io\n",
        "bücher.example",
        "host:٣",
        "a" * 64 + ".example",
        "a." * 130 + "b",
        "evil.example/x",
        "user@ghcr.io",
        "ghcr.io?x",
        "\udcff.example",
    ],
)
def test_what_no_host_grammar_allows_is_no_registry(name: str) -> None:
    assert not is_registry(name)


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io", "Index.Docker.IO"])
def test_docker_hub_has_one_name(name: str) -> None:
    assert canonical_registry(name) == "docker.io"


@pytest.mark.parametrize(
    ("text", "registry", "path"),
    [
        ("debian", "docker.io", "library/debian"),
        ("library/debian", "docker.io", "library/debian"),
        ("owner/app", "docker.io", "owner/app"),
        ("docker.io/debian", "docker.io", "library/debian"),
        ("index.docker.io/debian", "docker.io", "library/debian"),
        ("registry-1.docker.io/owner/app", "docker.io", "owner/app"),
        ("192.168.0.1", "docker.io", "library/192.168.0.1"),
        ("localhost/app", "localhost", "app"),
        ("localhost:5000/a/b/c", "localhost:5000", "a/b/c"),
        ("GHCR.io/owner/app", "ghcr.io", "owner/app"),
        ("Host/app", "host", "app"),
        ("[::1]:5000/app", "[::1]:5000", "app"),
        (f"quay.io/{HEX}", "quay.io", HEX),
        (f"library/{HEX}", "docker.io", f"library/{HEX}"),
    ],
)
def test_a_repository_is_found_as_docker_finds_it(text: str, registry: str, path: str) -> None:
    assert parse_repository(text) == RepositoryName(registry, path)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        (f"debian@sha256:{HEX}", f"docker.io/library/debian@sha256:{HEX}"),
        (f"debian:12@sha256:{HEX}", f"docker.io/library/debian:12@sha256:{HEX}"),
        ("docker.io/debian", "docker.io/library/debian:latest"),
        ("docker.io/library/debian:12", "docker.io/library/debian:12"),
        ("index.docker.io/debian:12", "docker.io/library/debian:12"),
        ("bitnami/redis:7", "docker.io/bitnami/redis:7"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("registry:5000/app:v1", "registry:5000/app:v1"),
        ("ghcr.io/org/app:tag", "ghcr.io/org/app:tag"),
        # without a colon
        (f"debian@sha256-{HEX}", f"docker.io/library/debian@sha256:{HEX}"),
        ("localhost+5000/app:v1", "localhost:5000/app:v1"),
        ("debian@440129be81b2", "docker.io/library/debian@440129be81b2"),
    ],
)
def test_a_pasted_reference_means_what_docker_takes_it_for(text: str, meant: str) -> None:
    assert str(parse_reference(text)) == meant


@pytest.mark.parametrize(
    "text", ["debian@440129be81b", "debian@sha256-440129be81b2", "debian@v1-0", "localhost+/app", "a+b/app", "app+1"]
)
def test_what_is_no_short_digest_and_no_port_is_an_invalid_name(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_reference(text)


@pytest.mark.parametrize(
    ("name", "registry"),
    [("ghcr.io", "ghcr.io"), ("Index.Docker.io", "docker.io"), ("localhost+5000", "localhost:5000"),
     ("registry+5000", "registry:5000"), ("debian", None), ("lost+found", None), ("a+b+1", None), ("host+0", None)],
)  # fmt: skip
def test_a_port_may_be_spelled_without_a_colon(name: str, registry: str | None) -> None:
    assert registry_named(name) == registry


def test_one_name_of_docker_hub_is_an_official_image_and_of_another_registry_a_repository() -> None:
    assert repository_at("docker.io", "debian").path == "library/debian"
    assert repository_at("docker.io", "owner/app").path == "owner/app"
    assert repository_at("ghcr.io", "debian").path == "debian"


def test_the_default_registry_takes_names_without_one_as_they_are() -> None:
    assert parse_repository("app", default_registry="127.0.0.1:5000") == RepositoryName("127.0.0.1:5000", "app")


def test_an_identifier_is_no_short_name_of_docker_hub() -> None:
    with pytest.raises(InvalidName):
        parse_repository(HEX)


@pytest.mark.parametrize("component", ["a", "a--b", "a__b", "a_b", "a.b", "0", "a-----b", "a" * 255])
def test_a_repository_component_may_be(component: str) -> None:
    assert is_repository_component(component)


@pytest.mark.parametrize(
    "component", ["", "a..b", "a___b", "a.-b", "-a", "a-", "A", "a\n", "a/b", "ä", "a" * 256, "_a", ".a", "a b", "a\0"]
)
def test_a_repository_component_may_not_be(component: str) -> None:
    assert not is_repository_component(component)


@pytest.mark.parametrize("tag", ["latest", "1.0", "_", "A", "v1-rc.2_x", "a" * 128])
def test_a_tag_may_be(tag: str) -> None:
    assert is_tag(tag)


@pytest.mark.parametrize(
    "tag",
    ["", ".a", "-a", "latest\n", "a/b", "a:b", "a" * 129, "ä", "١", "a b", "a\0", "..", "../x", "\udcff", "sha256:0"],
)
def test_f46_a_tag_may_not_be(tag: str) -> None:
    assert not is_tag(tag)


@pytest.mark.parametrize("tag", [f"sha256-{HEX}", f"sha256-{HEX}.sig", f"sha256-{HEX}.att", f"sha512-{HEX}{HEX}.sbom"])
def test_tags_of_signatures_are_attachments(tag: str) -> None:
    assert is_attachment_tag(tag)


@pytest.mark.parametrize("tag", ["sha256-abc", "latest.sig", f"sha256-{HEX}.txt", f"v{HEX}"])
def test_other_tags_are_no_attachments(tag: str) -> None:
    assert not is_attachment_tag(tag)


def test_a_reference_without_tag_and_digest_means_latest() -> None:
    assert parse_reference("debian") == Reference(RepositoryName("docker.io", "library/debian"), "latest", None)


def test_a_reference_keeps_both_tag_and_digest() -> None:
    reference = parse_reference(f"docker://localhost:5000/a/b:1.0@sha256:{HEX}")
    assert reference == Reference(RepositoryName("localhost:5000", "a/b"), "1.0", Digest("sha256", HEX))
    assert str(reference) == f"localhost:5000/a/b:1.0@sha256:{HEX}"


def test_a_digest_alone_does_not_mean_latest() -> None:
    assert parse_reference(f"a/b@sha256:{HEX}").tag is None


def test_a_port_is_not_taken_for_a_tag() -> None:
    assert parse_reference("localhost:5000/app").repository == RepositoryName("localhost:5000", "app")
    assert parse_reference("localhost:5000").repository == RepositoryName("docker.io", "library/localhost")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "a:",
        "a@",
        "a@sha256:x",
        "a:b:c",
        "https://ghcr.io/a",
        "a/../b",
        "ghcr.io/a\n",
        "a@@",
        "A b",
    ],
)
def test_what_is_no_reference_is_an_invalid_name(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_reference(text)


_CHARACTERS = st.one_of(st.sampled_from("abcXYZ019._-:/@[]%\n\0 ٣é\udcff"), st.characters())


@given(st.text(_CHARACTERS, max_size=120))
def test_any_text_is_a_reference_or_an_invalid_name(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidName:
        return
    assert parse_reference(str(reference)) == reference
    assert all(is_repository_component(component) for component in reference.repository.path.split("/"))


@given(st.text(_CHARACTERS, max_size=60))
def test_a_registry_that_is_one_stays_one_in_its_canonical_form(name: str) -> None:
    if is_registry(name):
        assert canonical_registry(canonical_registry(name)) == canonical_registry(name)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("library/debian:12/etc/passwd", r"a path in the image is written library/debian:12:/etc/passwd$"),
        ("ghcr.io/owner/app:v1/etc", r"a path in the image is written owner/app:v1:/etc$"),
        ("debian:12:etc/passwd", r"a path in the image is written debian:12:/etc/passwd$"),
        ("library/debian:12:/etc/passwd", r"name the image alone: library/debian:12$"),
        ("debian:", r"the tag of debian: is missing; without the colon it is latest$"),
        ("Debian:12", r"has no upper-case letters; write (library/)?debian$"),
    ],
)
def test_a_name_that_is_nearly_right_is_told_how_to_write_it(text: str, remedy: str) -> None:
    """`regfs ls library/debian:12/etc` said that 'library/debian:12/etc' is not a repository, and no more."""
    with pytest.raises(InvalidName, match=remedy):
        parse_reference(text)
