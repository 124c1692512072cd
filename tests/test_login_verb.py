"""`regfs login` and `regfs logout`: a login is tried, and stored where docker and podman find it."""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.cli.main import run as run_regfs
from regfs.errors import AccessDenied, BadConfiguration, InvalidOption, RegistryUnavailable
from regfs.registry.credentials.lookup import Credentials
from tests.support.fault_server import Connection, FaultServer, Response
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import REPOSITORY_ROOT

SECRET = "a:secret with: colons"
HELPER = """#!/bin/sh
echo "$1" >> {directory}/verbs; cat >> {directory}/input; echo >> {directory}/input
"""


def basic(connection: Connection) -> bool:
    """Let one user in."""
    right = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    if connection.seen.headers.get("authorization") == right:
        return connection.answer(connection.right())
    return connection.answer(Response(401, (("WWW-Authenticate", 'Basic realm="x"'),)))


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(MemoryRegistry()) as served:
        served.on("*", "/v2/", basic)
        yield served


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path / "docker"), "REGFS_CONFIG": "", "PATH": str(tmp_path)}


@pytest.fixture
def login(server: FaultServer, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(secret: str = SECRET, user: str = "me", registry: str = server.address) -> int:
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{secret}\n"))
        return run_regfs(["login", "-u", user, "--password-stdin", registry], environment)

    return run


def test_a_login_is_stored_where_the_mounts_find_it(
    login: Callable[..., int], server: FaultServer, environment: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "docker/config.json"
    config.parent.mkdir()
    config.write_text('{"auths": {"other": {"auth": "eDp5"}}, "proxies": {"default": {}}}')
    assert login() == 0
    found = Credentials(environment).for_host(server.address)
    assert found is not None
    assert (found.username, found.password) == ("me", SECRET)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    stored = json.loads(config.read_text())
    assert set(stored["auths"]) == {"other", server.address}
    assert stored["proxies"] == {"default": {}}
    assert run_regfs(["logout", server.address], environment) == 0
    assert json.loads(config.read_text())["auths"] == {"other": {"auth": "eDp5"}}
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]


def test_a_login_that_its_registry_did_not_ask_for_is_stored_and_told(
    environment: dict[str, str], login: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """As docker login, which says "Login Succeeded" of any password there."""
    with FaultServer(MemoryRegistry()) as open_to_all:
        assert login("anything", registry=open_to_all.address) == 0
        told = capsys.readouterr()
        assert f"{open_to_all.address} asked for no password" in told.err
        assert Credentials(environment).for_host(open_to_all.address) is not None
    assert login() == 0
    assert "asked for no password" not in capsys.readouterr().err


def test_a_wrong_password_is_refused_and_nothing_is_stored(login: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(AccessDenied) as refused:
        login("wrong")
    assert "wrong" not in str(refused.value)
    with pytest.raises(RegistryUnavailable):
        login(registry="127.0.0.1:1")
    assert not (tmp_path / "docker").exists()


@pytest.mark.parametrize("tokens", [False, True])
def test_a_refusal_names_the_user_and_no_variable_that_the_user_did_not_set(
    login: Callable[..., int], tokens: bool
) -> None:
    """It said that "the credentials from DOCKER_AUTH_CONFIG" do not open the registry: login tries its own by that."""
    with FaultServer(MemoryRegistry(users={"me": SECRET}, tokens=tokens)) as server:
        with pytest.raises(AccessDenied, match=r"refuses the user 'me' .*answers 401.*; check both") as refused:
            login("wrong", registry=server.address)
        assert str(refused.value).startswith(server.address)
        assert "DOCKER_AUTH_CONFIG" not in str(refused.value)


@pytest.mark.parametrize("tokens", [False, True])
def test_credentials_in_a_variable_are_not_called_a_login(environment: dict[str, str], tokens: bool) -> None:
    with FaultServer(MemoryRegistry(users={"me": SECRET}, tokens=tokens)) as server:
        auth = base64.b64encode(b"me:wrong").decode()
        environment["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {server.address: {"auth": auth}}})
        with pytest.raises(AccessDenied, match=r"DOCKER_AUTH_CONFIG.* change that variable, or unset it"):
            run_regfs(["tags", f"{server.address}/demo/app"], environment)


def test_a_helper_keeps_the_secret_and_the_file_has_none(
    login: Callable[..., int], server: FaultServer, environment: dict[str, str], tmp_path: Path
) -> None:
    helper = tmp_path / "docker-credential-box"
    helper.write_text(HELPER.format(directory=tmp_path))
    helper.chmod(0o755)
    environment["PATH"] = f"{tmp_path}:/usr/bin:/bin"
    (tmp_path / "docker").mkdir()
    config = tmp_path / "docker/config.json"
    config.write_text(json.dumps({"credHelpers": {server.address: "box"}}))
    assert login() == 0
    assert json.loads((tmp_path / "input").read_text().splitlines()[0]) == {
        "ServerURL": server.address, "Username": "me", "Secret": SECRET,
    }  # fmt: skip
    assert json.loads(config.read_text())["auths"] == {server.address: {}}
    assert run_regfs(["logout", server.address], environment) == 0
    assert (tmp_path / "verbs").read_text().split()[0] == "store"
    assert (tmp_path / "verbs").read_text().split()[-1] == "erase"


def test_a_helper_that_is_missing_is_named(login: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text('{"credsStore": "none"}')
    with pytest.raises(BadConfiguration, match="docker-credential-none cannot be used"):
        login()


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": 1}'])
def test_a_broken_file_is_left_as_it_is(login: Callable[..., int], tmp_path: Path, text: str) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(text)
    with pytest.raises(BadConfiguration, match="is left as it is"):
        login()
    assert (tmp_path / "docker/config.json").read_text() == text


def test_a_login_that_another_file_hides_is_told(
    login: Callable[..., int], server: FaultServer, environment: dict[str, str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    environment["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
    hiding = tmp_path / "run/containers/auth.json"
    hiding.parent.mkdir(parents=True)
    hiding.write_text(json.dumps({"auths": {server.address: {"auth": base64.b64encode(b"you:x").decode()}}}))
    del environment["DOCKER_CONFIG"]
    assert login() == 0
    assert f"{hiding} has another login for {server.address}" in capsys.readouterr().err
    assert (tmp_path / ".docker/config.json").exists()


def test_an_incomplete_login_is_told(login: Callable[..., int], environment: dict[str, str]) -> None:
    with pytest.raises(InvalidOption, match="a user name has no colon"):
        login(user="a:b")
    with pytest.raises(InvalidOption, match="a user name and a password are needed"):
        login("")
    with pytest.raises(InvalidOption, match="--password-stdin needs -u NAME"):
        run_regfs(["login", "--password-stdin"], environment)
    with pytest.raises(InvalidOption, match="there is no terminal"):
        run_regfs(["login", "-u", "me"], environment)


def test_a_name_and_a_password_that_are_typed_leave_standard_output_to_the_json(
    server: FaultServer, environment: dict[str, str]
) -> None:
    """The prompt for the name stood before the JSON."""
    typing, terminal = os.openpty()
    words = ["-m", "regfs", "login", "--json", server.address]
    verb = subprocess.Popen(
        [sys.executable, *words], env=environment | {"PATH": os.environ["PATH"]}, stdin=terminal,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd=REPOSITORY_ROOT,
    )  # fmt: skip
    try:
        for prompt, answer in (("user name for", "me"), ("password of me for", SECRET)):
            asked(verb, f"{prompt} {server.address}: ")
            os.write(typing, f"{answer}\n".encode())
        out, err = verb.communicate(timeout=60)
    finally:
        verb.kill()
        os.close(typing)
        os.close(terminal)
    assert verb.returncode == 0, err
    assert json.loads(out)["registry"] == server.address


def asked(verb: subprocess.Popen[bytes], prompt: str) -> None:
    """Read standard error up to *prompt*: what is typed before the password's is thrown away."""
    assert verb.stderr is not None
    said = b""
    while not said.endswith(prompt.encode()):
        more = os.read(verb.stderr.fileno(), 1)
        assert more, said
        said += more
