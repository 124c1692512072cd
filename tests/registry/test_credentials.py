"""Credentials in files: which host gets which secret, and which never does."""

from __future__ import annotations

import base64
import json
import logging
import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import InvalidName
from regfs.registry.credentials.credential import Credential
from regfs.registry.credentials.files import normal_key, parse_source
from regfs.registry.credentials.lookup import Credentials
from tests.registry.user_with_logins import NOBODYS_UID, SECRET, User, auth, password

# Which place.


def test_without_any_file_everybody_is_anonymous(user: User) -> None:
    assert user.password("ghcr.io/owner/app") is None


def test_an_empty_environment_is_anonymous_too() -> None:
    assert Credentials({}, uid=NOBODYS_UID, run=Path("/nonexistent")).for_host("ghcr.io") is None


def test_the_first_place_that_has_something_wins(user: User, tmp_path: Path) -> None:
    places = [
        "home/.dockercfg",
        "home/.docker/config.json",
        "home/.config/containers/auth.json",
        f"system/containers/{os.getuid()}/auth.json",
        f"system/user/{os.getuid()}/containers/auth.json",
        "run/containers/auth.json",
    ]
    for place in places:
        entry = {"ghcr.io": auth("u", place)}
        user.write(tmp_path / place, entry if place.endswith("cfg") else {"auths": entry})
        assert user.password("ghcr.io/owner/app") == place
    user.environment["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {"ghcr.io": auth("u", "variable")}})
    assert user.password("ghcr.io/owner/app") == "variable"


@pytest.mark.parametrize("place", ["containers/{uid}/auth.json", "user/{uid}/containers/auth.json"])
@pytest.mark.parametrize("runtime_directory", [None, "", "/elsewhere"])
def test_a_login_of_podman_is_seen_with_and_without_a_runtime_directory(
    user: User, place: str, runtime_directory: str | None
) -> None:
    del user.environment["XDG_RUNTIME_DIR"]
    if runtime_directory is not None:
        user.environment["XDG_RUNTIME_DIR"] = runtime_directory
    user.write(user.run / place.format(uid=os.getuid()), {"auths": {"ghcr.io": auth("u", "podman")}})
    assert user.password("ghcr.io/owner/app") == "podman"


def test_a_login_of_another_user_is_not_seen(user: User) -> None:
    for place in ("containers/4711/auth.json", "user/4711/containers/auth.json"):
        user.write(user.run / place, {"auths": {"ghcr.io": auth("u", "foreign")}})
    assert user.password("ghcr.io/owner/app") is None


def test_a_login_since_the_boot_goes_before_one_that_may_be_old(user: User) -> None:
    user.docker(auths={"ghcr.io": auth("u", "old")})
    user.write(user.run / f"containers/{os.getuid()}/auth.json", {"auths": {"ghcr.io": auth("u", "new")}})
    assert user.password("ghcr.io/owner/app") == "new"


def test_a_daemon_without_home_finds_the_login_in_its_users_home(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    user.docker(auths={"ghcr.io": auth("u", "home")})
    entry = pwd.struct_passwd(("u", "x", NOBODYS_UID, NOBODYS_UID, "", str(user.home), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {NOBODYS_UID: entry}[uid])
    for environment in ({}, {"HOME": ""}):
        found = Credentials(environment, uid=NOBODYS_UID, run=user.run)
        assert password(found, "ghcr.io/owner/app") == "home"


def test_a_place_that_has_nothing_for_the_registry_leaves_it_to_the_next(user: User) -> None:
    user.docker(auths={"quay.io": auth("u", "quay")})
    user.write(".config/containers/auth.json", {"auths": {"ghcr.io": auth("u", "podman")}})
    assert user.password("ghcr.io/owner/app") == "podman"


def test_directories_that_the_environment_names_are_used(user: User, tmp_path: Path) -> None:
    user.docker(auths={"ghcr.io": auth("u", "home")})
    user.environment["DOCKER_CONFIG"] = str(tmp_path / "elsewhere")
    user.write(tmp_path / "elsewhere/config.json", {"auths": {"ghcr.io": auth("u", "elsewhere")}})
    user.environment["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    user.write(tmp_path / "xdg/containers/auth.json", {"auths": {"quay.io": auth("u", "xdg")}})
    assert user.password("ghcr.io/a") == "elsewhere"
    assert user.password("quay.io/a") == "xdg"


def test_registry_auth_file_is_the_only_file_that_counts(user: User, tmp_path: Path) -> None:
    user.docker(auths={"ghcr.io": auth("u", "home"), "quay.io": auth("u", "home")})
    file = user.write(tmp_path / "only.json", {"auths": {"ghcr.io": auth("u", "only")}})
    user.environment["REGISTRY_AUTH_FILE"] = str(file)
    assert user.password("ghcr.io/a") == "only"
    assert user.password("quay.io/a") is None


def test_the_source_is_named_and_logged_but_not_the_secret(user: User, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    file = user.docker(auths={"ghcr.io": auth("me", SECRET)})
    found = user.credentials().for_host("ghcr.io")
    assert found is not None
    assert found.source == str(file)
    assert str(file) in caplog.text
    assert SECRET not in caplog.text + repr(found)


def test_no_kind_of_secret_is_in_the_repr() -> None:
    credential = Credential("me", SECRET, SECRET, SECRET, source="here")
    assert SECRET not in f"{credential!r} {credential}"
    assert "me" in repr(credential)


# Which entry.


def test_the_longest_path_prefix_wins(user: User) -> None:
    user.docker(
        auths={
            "reg.example": auth("u", "host"),
            "reg.example/team": auth("u", "team"),
            "reg.example/team/app": auth("u", "app"),
        }
    )
    assert user.password("reg.example/other") == "host"
    assert user.password("reg.example/team/tool") == "team"
    assert user.password("reg.example/team/app") == "app"
    assert user.password("reg.example/team/app/sub") == "app"
    assert user.password("reg.example") == "host"


@pytest.mark.parametrize(
    "name",
    [
        "reg.example.com.evil.net/team/app",
        "reg.example.co/team/app",
        "evil-reg.example.com/team/app",
        "reg.example.com:5000/team/app",
        "reg.example.com/teammate/app",
        "reg.example.com/other",
        "reg.example.com",
    ],
)
def test_a_prefix_of_a_string_is_no_match(user: User, name: str) -> None:
    user.docker(auths={"reg.example.com/team": auth("u", SECRET)})
    assert user.password(name) is None


def test_ports_must_be_equal(user: User) -> None:
    user.docker(auths={"localhost:5000": auth("u", "5000"), "localhost:5001": auth("u", "5001")})
    assert user.password("localhost:5001/a") == "5001"
    assert user.password("localhost:5002/a") is None
    assert user.password("localhost/a") is None


@pytest.mark.parametrize(
    "key", ["https://reg.example/v1/", "http://reg.example", "reg.example/v2/", "REG.example", "https://reg.example/x"]
)
def test_keys_of_old_are_understood(user: User, key: str) -> None:
    user.docker(auths={key: auth("u", "old")})
    assert user.password("reg.example/a/b") == "old"


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"])
def test_docker_hub_is_found_under_each_of_its_names(user: User, key: str) -> None:
    user.docker(auths={key: auth("u", "hub")})
    assert user.password("docker.io/library/debian") == "hub"
    assert password(user.credentials(), "registry-1.docker.io") == "hub"


def test_a_key_as_written_goes_before_one_that_only_means_the_same(user: User) -> None:
    user.docker(auths={"https://reg.example": auth("u", "url"), "reg.example": auth("u", "plain")})
    assert user.password("reg.example/a") == "plain"


# Which secret.


def test_a_password_may_have_colons_and_any_letters(user: User) -> None:
    user.docker(auths={"reg.example": auth("robot$proj+name", "пароль:with:colons")})
    found = user.credentials().for_host("reg.example")
    assert found is not None
    assert (found.username, found.password) == ("robot$proj+name", "пароль:with:colons")


def test_user_and_password_may_stand_apart(user: User) -> None:
    user.docker(auths={"reg.example": {"username": "u", "password": "p"}})
    assert user.password("reg.example") == "p"


def test_trailing_nuls_are_no_part_of_a_password(user: User) -> None:
    user.docker(auths={"reg.example": auth("u", "p\0\0")})
    assert user.password("reg.example") == "p"


def test_tokens_are_told_apart(user: User) -> None:
    user.docker(
        auths={
            "identity.example": {**auth("u", ""), "identitytoken": "I"},
            "angle.example": {"username": "<token>", "password": "A"},
            "bearer.example": {"registrytoken": "B"},
        }
    )
    credentials = user.credentials()
    found = [credentials.for_host(f"{name}.example") for name in ("identity", "angle", "bearer")]
    assert [(each.identity_token, each.registry_token) for each in found if each] == [
        ("I", None),
        ("A", None),
        (None, "B"),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": "!!!"},
        {"auth": base64.b64encode(SECRET.encode()).decode()},
        {"auth": base64.b64encode(b"u:\xff").decode()},
        {"registrytoken": f"{SECRET}\r\nX-Evil: 1"},
        7,
        [SECRET],
        None,
    ],
)
def test_a_bad_entry_costs_that_entry_alone_and_is_not_quoted(
    user: User, entry: object, caplog: pytest.LogCaptureFixture
) -> None:
    user.docker(auths={"bad.example": entry, "good.example": auth("u", "p")})
    credentials = user.credentials()
    assert password(credentials, "bad.example") is None
    assert password(credentials, "good.example") == "p"
    assert "bad.example" in caplog.text
    assert SECRET not in caplog.text


def test_an_empty_entry_only_marks_that_a_helper_has_it(user: User, caplog: pytest.LogCaptureFixture) -> None:
    user.docker(auths={"reg.example": {}})
    assert user.password("reg.example") is None
    assert caplog.text == ""


# Files that change.


def test_a_login_takes_effect_without_a_remount(user: User) -> None:
    credentials = user.credentials()
    assert password(credentials, "ghcr.io") is None
    user.docker(auths={"ghcr.io": auth("u", "first")})
    assert password(credentials, "ghcr.io") == "first"
    # Of another length: until Linux 6.13 two changes within a tick of 4 ms have the same time.
    user.docker(auths={"ghcr.io": auth("u", "the second")})
    assert password(credentials, "ghcr.io") == "the second"


def test_a_logout_takes_effect_too(user: User) -> None:
    file = user.docker(auths={"ghcr.io": auth("u", "p")})
    credentials = user.credentials()
    assert password(credentials, "ghcr.io") == "p"
    user.docker(auths={})
    assert password(credentials, "ghcr.io") is None
    file.unlink()
    assert password(credentials, "ghcr.io") is None


@pytest.mark.parametrize("kept", [0, 1, 30, -2])
def test_f11_a_file_caught_while_it_is_written_keeps_its_last_good_content(
    user: User, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    file = user.docker(auths={"ghcr.io": auth("u", SECRET)})
    credentials = user.credentials()
    assert password(credentials, "ghcr.io") == SECRET
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    assert password(credentials, "ghcr.io") == SECRET
    assert password(credentials, "ghcr.io") == SECRET
    assert caplog.text.count("last good content") == 1
    assert SECRET not in caplog.text
    user.docker(auths={"ghcr.io": auth("u", "after")})
    assert password(credentials, "ghcr.io") == "after"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000, b'{"auths": [], "credHelpers": 7, "credsStore": []}'],
)
def test_a_file_that_never_was_good_means_anonymous(user: User, content: bytes) -> None:
    user.write(".docker/config.json", content)
    user.write(".config/containers/auth.json", {"auths": {"ghcr.io": auth("u", "next")}})
    assert user.password("ghcr.io") == "next"


def test_a_pipe_in_the_place_of_a_file_does_not_block(user: User) -> None:
    (user.home / ".docker").mkdir(parents=True)
    os.mkfifo(user.home / ".docker/config.json")
    assert user.password("ghcr.io") is None


def test_files_below_our_own_mount_are_not_touched(user: User) -> None:
    user.docker(auths={"ghcr.io": auth("u", "p")})
    assert password(user.credentials(mountpoint=user.home), "ghcr.io") is None


def test_docker_auth_config_that_is_no_json_is_warned_about_without_its_text(
    user: User, caplog: pytest.LogCaptureFixture
) -> None:
    user.environment["DOCKER_AUTH_CONFIG"] = SECRET
    assert user.password("ghcr.io") is None
    assert "DOCKER_AUTH_CONFIG" in caplog.text
    assert SECRET not in caplog.text


# Any content of the files.

_JSONX = 0
_KEYS = st.sampled_from(
    ["auths", "credHelpers", "credsStore", "auth", "username", "password", "identitytoken", "registrytoken", "ghcr.io"]
) | st.text(max_size=10)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=15,
)


@given(_JSON)
def test_any_json_is_a_source_or_a_value_error(document: object) -> None:
    for legacy in (False, True):
        try:
            source = parse_source(json.dumps(document).encode(), name="x", legacy=legacy)
        except ValueError:
            continue
        source.credential_for(["ghcr.io/a", "ghcr.io"])
        source.helper_for(["ghcr.io/a", "ghcr.io"])


@given(st.binary(max_size=100))
def test_any_bytes_are_a_source_or_a_value_error(content: bytes) -> None:
    try:
        parse_source(content, name="x")
    except ValueError:
        pass


@given(st.text(st.sampled_from("abc.:/[]-0_AZ\n"), max_size=30) | st.text(max_size=30))
def test_the_normal_form_of_a_key_is_normal(key: str) -> None:
    assert normal_key(normal_key(key)) == normal_key(key)


def test_a_host_that_is_none_is_an_invalid_name(user: User) -> None:
    with pytest.raises(InvalidName):
        user.credentials().for_host("https://ghcr.io")
