"""`regfs doctor`: what this machine can do, and what to do about the rest."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regfs.cli.main import run as run_regfs
from regfs.mount import device
from tests.support.fault_server import FaultServer, Nothing

Doctor = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Return a function that returns the exit code and the findings by name."""

    def run(*words: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
        own = {"HOME": str(tmp_path), "REGFS_CONFIG": "", "PATH": os.environ["PATH"], **environment}
        code = run_regfs(["doctor", "--json", "--cache-dir", str(tmp_path / "cache"), *words], own)
        shown = json.loads(capsys.readouterr().out)
        assert shown["schema"] == 1
        return code, {each["name"]: each for each in shown["findings"]}

    return run


def test_each_thing_that_is_wanted_has_a_line(doctor: Doctor, needs_fuse: None, tmp_path: Path) -> None:
    with FaultServer(Nothing()) as server:
        code, found = doctor("--default-registry", server.address)
    assert code == 0
    assert found["mount registries"]["is_well"]
    assert str(tmp_path / "cache") in found["keep what was fetched"]["detail"]
    assert found[f"reach {server.address}"]["is_well"]
    assert "anonymously" in found[f"log in to {server.address}"]["detail"]
    assert not server.seen, "no request is sent"


def test_what_is_missing_has_its_remedy(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "DEVICE", str(tmp_path / "no-fuse"))
    (tmp_path / "cache").touch()
    code, found = doctor("--default-registry", "127.0.0.1:1")
    assert code == 1
    assert "modprobe fuse" in found["mount registries"]["detail"]
    assert "choose another with --cache-dir" in found["keep what was fetched"]["detail"]
    assert not found["reach 127.0.0.1:1"]["is_well"]


def test_the_source_of_a_login_is_named_and_its_password_is_not(doctor: Doctor, tmp_path: Path) -> None:
    auths = {"auths": {"lab:5000": {"auth": base64.b64encode(b"me:hidden").decode()}}}
    (tmp_path / "config.json").write_text(json.dumps(auths))
    _, found = doctor("--offline", "--default-registry", "lab:5000", DOCKER_CONFIG=str(tmp_path))
    assert found["log in to lab:5000"]["detail"] == f"as 'me', from {tmp_path / 'config.json'}"
    assert found["reach lab:5000"]["detail"] == "regfs runs with --offline"
