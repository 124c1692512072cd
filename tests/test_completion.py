"""Completion: what the shell offers for a `regfs` line that is being typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from regfs.cli.candidates import candidates
from regfs.cli.main import run as run_regfs
from tests.conftest import missing
from tests.support.fault_server import FaultServer
from tests.support.hello import host_architecture
from tests.support.images import file, image_of, layer
from tests.support.log_kept import log_kept
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import REPOSITORY_ROOT


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user whose cache has seen demo/app:1.0, and whose registry is gone."""
    home = tmp_path_factory.mktemp("home")
    application = MemoryRegistry()
    image = image_of(layer(file("etc/passwd", b"x"), file("etc/apt/sources", b"x")), architecture=host_architecture())
    for content in image.blobs().values():
        application.add_blob("demo/app", content)
    application.add_manifest("demo/app", image.manifest, tag="1.0", media_type=image.media_type)
    with FaultServer(application) as server, log_kept():
        own = {"HOME": str(home), "REGFS_CONFIG": "", "PATH": os.environ["PATH"]}
        own["REGFS_DEFAULT_REGISTRY"] = server.address
        assert run_regfs(["ls", "-q", "demo/app:1.0"], own) == 0
    return own


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ins", ["inspect "]),
        ("mount --pl", ["--platform"]),
        ("run --network ", ["host", "none"]),
        ("--driver f", ["fusepy"]),
        ("cache ver", ["verify"]),
        ("help umo", ["umount"]),
        ("completion z", ["zsh"]),
        ("cat d", ["demo"]),
        ("cat demo/", ["demo/app"]),
        ("cat demo/app:", ["demo/app:1.0"]),
        ("cat demo/app:1.0:/", ["demo/app:1.0:/etc/"]),
        ("cat demo/app:1.0:/etc/p", ["demo/app:1.0:/etc/passwd "]),
        ("cat other/app:", []),
        ("cat demo/app:2:/", []),
        ("umount ./", []),
        ("cat --cache-dir ", []),
    ],
)
def test_the_word_that_is_typed_has_candidates(typed: str, offered: list[str], environment: dict[str, str]) -> None:
    assert candidates(typed.split(" "), environment) == offered


def test_every_verb_that_is_shown_is_offered(environment: dict[str, str]) -> None:
    offered = candidates([""], environment)
    assert "mount " in offered
    assert "complete " not in offered


def test_a_broken_setting_puts_no_message_into_the_line(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_regfs(["complete", "--", "cat", "d"], {**environment, "REGFS_OFFLINE": "perhaps"}) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("regfs cat demo/app:1.0:/etc/", ["/etc/apt/", "/etc/passwd"]),
        ("regfs ins", ["inspect"]),
        ("regfs mount --of", ["--offline"]),
    ],
)
def test_bash_gets_what_stands_behind_the_last_colon(
    line: str, replies: list[str], environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A colon ends a word for bash: it would insert what is typed already once more."""
    run_regfs(["completion", "bash"], environment)
    (tmp_path / "regfs").write_text(f'#!/bin/sh\nexec {sys.executable} -m regfs "$@"\n')
    (tmp_path / "regfs").chmod(0o755)
    script = f"{capsys.readouterr().out}compopt() {{ :; }}\n_regfs\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    own = {
        **environment, "PATH": f"{tmp_path}:{environment['PATH']}", "PYTHONPATH": str(REPOSITORY_ROOT),
        "COMP_LINE": line, "COMP_POINT": str(len(line)),
    }  # fmt: skip
    done = subprocess.run(["bash", "-c", script], env=own, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == replies, done.stderr


def _needs(shell: str) -> None:
    if shutil.which(shell) is None:
        missing(f"{shell} is not installed (apt-get install {shell})")


def _script(shell: str, environment: dict[str, str], capsys: pytest.CaptureFixture[str], directory: Path) -> Path:
    run_regfs(["completion", shell], environment)
    script = directory / "script"
    script.write_text(capsys.readouterr().out)
    (directory / "regfs").write_text(f'#!/bin/sh\nexec {sys.executable} -m regfs "$@"\n')
    (directory / "regfs").chmod(0o755)
    return script


def _asked(directory: Path, environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    own = {**environment, "PATH": f"{directory}:{environment['PATH']}", "PYTHONPATH": str(REPOSITORY_ROOT)}
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=60, check=False, cwd=directory)


@pytest.mark.parametrize(
    ("line", "offered"), [("regfs cat demo/app:", ["demo/app:1.0"]), ("regfs cat ./scr", ["./script"])]
)
def test_fish_does_not_offer_every_file_as_the_tag_of_an_image(
    line: str, offered: list[str], environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After `demo/app:` it offered all files of the working directory, and paths only where regfs knows nothing."""
    _needs("fish")
    script = _script("fish", environment, capsys, tmp_path)
    done = _asked(tmp_path, environment, "fish", "--no-config", "-c", f"source {script}; complete -C '{line}'")
    assert done.stdout.split() == offered, done.stderr


def test_zsh_completes_where_no_compinit_ran_before(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a new .zshrc it said "command not found: compdef"."""
    _needs("zsh")
    script = _script("zsh", environment, capsys, tmp_path)
    done = _asked(tmp_path, environment, "zsh", "-f", "-c", f"source {script}; print $_comps[regfs]")
    assert (done.stdout, done.stderr) == ("_regfs\n", "")


def test_zsh_completes_by_a_file_in_its_fpath_from_the_first_key_press_on(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`regfs setup` puts it there; zsh runs such a file as the function itself, once, instead of reading it."""
    _needs("zsh")
    _script("zsh", environment, capsys, tmp_path).rename(tmp_path / "_regfs")
    program = """
compadd() { print -r -- "$@" }
words=(regfs ins) CURRENT=2
fpath=(. $fpath); autoload -Uz _regfs; _regfs
"""
    done = _asked(tmp_path, environment, "zsh", "-f", "-c", program)
    assert "-- inspect" in done.stdout.splitlines(), done.stderr
