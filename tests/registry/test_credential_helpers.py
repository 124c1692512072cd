"""Credential helpers: how they are asked, for how long, and what is done with their answers."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regfs.errors import Interrupted, OutOfThreads, WouldBlock
from regfs.process.waiting.deadline import NON_BLOCKING, Deadline, under
from regfs.registry.credentials.credential import Credential
from regfs.registry.credentials.helpers import CredentialHelpers
from tests.registry.user_with_logins import SECRET, User, answer, auth, password
from tests.support.no_threads import no_threads


def test_a_helper_is_asked_as_docker_asks_it(user: User) -> None:
    user.docker(credsStore="general", credHelpers={"gcr.io": "special"})
    user.helper("general", answer("u", "general"))
    user.helper("special", answer("u", "special"))
    assert user.password("gcr.io/project/app") == "special"
    assert user.password("ghcr.io/owner/app") == "general"
    assert user.password("docker.io/library/debian") == "general"
    assert user.helper_calls() == ["get gcr.io", "get ghcr.io", "get https://index.docker.io/v1/"]


def test_the_source_of_a_helpers_answer_is_the_helper(user: User) -> None:
    user.docker(credsStore="general")
    user.helper("general", answer("u", SECRET))
    found = user.credentials().for_host("ghcr.io")
    assert found is not None
    assert found.source == "docker-credential-general"
    assert SECRET not in repr(found)


def test_an_identity_token_from_a_helper_is_one(user: User) -> None:
    user.docker(credsStore="general")
    user.helper("general", answer("<token>", "I"))
    found = user.credentials().for_host("ghcr.io")
    assert found is not None
    assert found.identity_token == "I"


def test_a_helper_that_has_nothing_is_no_reason_to_warn(user: User, caplog: pytest.LogCaptureFixture) -> None:
    user.docker(credsStore="general", auths={"ghcr.io": auth("u", "file")})
    user.helper("general", "echo credentials not found in native keychain; exit 1")
    assert user.password("quay.io") is None
    assert user.password("ghcr.io") == "file"
    assert caplog.text == ""


def test_a_missing_helper_never_blocks_a_public_image(user: User, caplog: pytest.LogCaptureFixture) -> None:
    user.docker(credsStore="missing")
    assert user.password("docker.io/library/debian") is None
    assert "docker-credential-missing" in caplog.text


@pytest.mark.parametrize(
    "script",
    [
        f"echo {SECRET}",
        f"echo {SECRET} >&2; exit 1",
        f"echo {SECRET}; exit 3",
        "exit 0",
        f"echo '[\"{SECRET}\"]'",
        f'echo \'{{"Username": 1, "Secret": "{SECRET}"}}\'',
        f"yes {SECRET}",
        "kill -9 $$",
        "printf '\\377'",
        "exec >&-; sleep 600",
    ],
)
def test_f9_a_broken_helper_is_warned_about_and_means_anonymous(
    user: User, script: str, caplog: pytest.LogCaptureFixture
) -> None:
    user.docker(credsStore="broken")
    user.helper("broken", script)
    helpers = CredentialHelpers(user.environment, timeout_s=0.5 if "sleep" in script else 20)
    assert password(user.credentials(helpers=helpers), "ghcr.io") is None
    assert "docker-credential-broken" in caplog.text
    assert SECRET not in caplog.text


def test_a_helper_that_cannot_be_started_for_want_of_processes_is_asked_the_next_time(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.docker(credsStore="store")
    user.helper("store", answer("u", "p"))
    credentials = user.credentials(helpers=CredentialHelpers(user.environment))

    def no_fork(*_arguments: object, **_options: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patched:  # a limit of processes does not bind root, who runs most tests
        patched.setattr(subprocess.Popen, "__init__", no_fork)
        with pytest.raises(OutOfThreads):
            password(credentials, "ghcr.io")
    others = user.credentials(helpers=CredentialHelpers(user.environment))
    with no_threads(), pytest.raises(OutOfThreads):
        password(others, "ghcr.io")
    assert password(others, "ghcr.io") == "p"
    assert password(credentials, "ghcr.io") == "p"


def test_f9_a_helper_that_hangs_is_stopped_with_its_children(user: User, tmp_path: Path) -> None:
    user.docker(credsStore="hanging")
    written = tmp_path / "child"
    user.helper("hanging", f"sleep 600 & echo $! > {written}; wait")
    for timeout_s in (0.5, 5.0, 50.0):  # on a busy machine it may not come far within half a second
        helpers = CredentialHelpers(user.environment, timeout_s=timeout_s)
        assert password(user.credentials(helpers=helpers), "ghcr.io") is None
        if written.exists() and written.read_text():
            break
    try:
        child = os.pidfd_open(int(written.read_text()))
    except ProcessLookupError:
        return
    assert select.select([child], [], [], 60)[0], "the helper's child still runs"
    os.close(child)


def test_f9_a_helper_that_hangs_does_not_outlive_us(user: User, tmp_path: Path) -> None:
    user.docker(credsStore="hanging")
    os.mkfifo(tmp_path / "began")
    user.helper("hanging", f"echo $$ > {tmp_path}/began; exec sleep 600")
    credentials = user.credentials()
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(password, credentials, "ghcr.io")
        helper = os.pidfd_open(int((tmp_path / "began").read_text()))
        credentials.close()
        assert select.select([helper], [], [], 60)[0], "the helper still runs"
        assert waiter.result(60) is None
    os.close(helper)


def test_f9_a_helper_that_leaves_a_child_behind_answers_at_once(user: User, tmp_path: Path) -> None:
    user.docker(credsStore="agent")
    user.helper("agent", f"sleep 600 & echo $! > {tmp_path}/child; {answer('u', 'p')}")
    assert user.password("ghcr.io") == "p"
    os.kill(int((tmp_path / "child").read_text()), 9)


@pytest.mark.parametrize("name", ["../evil", "a/b", "a b", "", "a;b", "a\n", "$(x)"])
def test_a_helper_with_an_impossible_name_is_never_run(user: User, name: str) -> None:
    user.docker(credsStore=name, auths={"ghcr.io": auth("u", "file")})
    assert user.password("ghcr.io") == "file"


def test_a_helper_below_our_own_mount_is_never_run(user: User) -> None:
    user.docker(credsStore="general")
    user.helper("general", answer("u", "p"))
    assert password(user.credentials(mountpoint=user.bin), "ghcr.io") is None
    assert user.helper_calls() == []


def test_answers_of_helpers_are_remembered_until_they_are_forgotten(user: User) -> None:
    user.docker(credsStore="general")
    user.helper("general", answer("u", "p"))
    credentials = user.credentials()
    for _ in range(3):
        assert password(credentials, "ghcr.io/a") == "p"
    assert len(user.helper_calls()) == 1
    credentials.forget("ghcr.io")
    assert password(credentials, "ghcr.io/a") == "p"
    assert len(user.helper_calls()) == 2


def test_a_registry_that_refuses_everything_does_not_start_a_helper_for_every_request(user: User) -> None:
    now = [0.0]
    user.docker(credsStore="general")
    user.helper("general", answer("u", "p"))
    credentials = user.credentials(helpers=CredentialHelpers(user.environment, clock=lambda: now[0]))
    for _ in range(5):
        password(credentials, "ghcr.io")
        credentials.forget("ghcr.io")
    assert len(user.helper_calls()) == 2
    now[0] = 11.0
    credentials.forget("ghcr.io")
    password(credentials, "ghcr.io")
    assert len(user.helper_calls()) == 3


def test_a_login_with_a_helper_takes_effect_at_once(user: User) -> None:
    user.docker(credsStore="general")
    user.helper("general", "echo credentials not found in native keychain; exit 1")
    credentials = user.credentials()
    assert password(credentials, "ghcr.io") is None
    user.helper("general", answer("u", "p"))
    assert password(credentials, "ghcr.io") is None
    user.docker(credsStore="general", auths={"ghcr.io": {}})
    assert password(credentials, "ghcr.io") == "p"


def test_answers_of_helpers_are_remembered_for_minutes(user: User) -> None:
    now = [0.0]
    user.docker(credsStore="general")
    user.helper("general", answer("u", "p"))
    credentials = user.credentials(helpers=CredentialHelpers(user.environment, clock=lambda: now[0]))
    password(credentials, "ghcr.io")
    now[0] = 299.0
    password(credentials, "ghcr.io")
    assert len(user.helper_calls()) == 1
    now[0] = 301.0
    password(credentials, "ghcr.io")
    assert len(user.helper_calls()) == 2


def test_many_threads_that_ask_at_once_run_the_helper_once(user: User, tmp_path: Path) -> None:
    user.docker(credsStore="slow")
    user.helper("slow", f"until [ -e {tmp_path}/go ]; do sleep 0.02; done; {answer('u', 'p')}")
    credentials = user.credentials()
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(password(credentials, "ghcr.io"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    assert found == ["p"] * 20
    assert len(user.helper_calls()) == 1


def test_what_a_helper_says_that_ran_before_a_login_is_not_remembered(user: User, tmp_path: Path) -> None:
    secret, ready, go = (tmp_path / name for name in ("secret", "ready", "go"))
    os.mkfifo(ready)
    wait = f"[ -e {go} ] || echo > {ready}; until [ -e {go} ]; do sleep 0.02; done"
    user.helper("slow", f'secret=$(cat {secret}); {wait}; printf \'{{"Username":"u","Secret":"%s"}}\' "$secret"')
    helpers = CredentialHelpers(user.environment)
    secret.write_text("old")
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(helpers.credential, "slow", server="ghcr.io")
        ready.read_text()  # the helper has read the old secret by now
        secret.write_text("new")
        helpers.forget_all()
        go.touch()
        assert before.result(60) == Credential("u", "old", source="docker-credential-slow")
    assert helpers.credential("slow", server="ghcr.io") == Credential("u", "new", source="docker-credential-slow")


def test_a_thread_that_may_not_wait_does_not_wait_for_a_helper(user: User, tmp_path: Path) -> None:
    user.docker(credsStore="slow", credHelpers={"quay.io": "quick"})
    user.helper("slow", f"until [ -e {tmp_path}/go ]; do sleep 0.02; done; {answer('u', 'p')}")
    user.helper("quick", answer("u", "q"))
    credentials = user.credentials()
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        credentials.for_host("ghcr.io")
    assert password(credentials, "quay.io") == "q"
    with under(NON_BLOCKING):
        assert password(credentials, "quay.io") == "q"
    (tmp_path / "go").touch()
    assert password(credentials, "ghcr.io") == "p"
    assert len(user.helper_calls()) == 2


def test_a_thread_that_waits_for_a_helper_can_be_interrupted(user: User, tmp_path: Path) -> None:
    user.docker(credsStore="slow")
    user.helper("slow", f"until [ -e {tmp_path}/go ]; do sleep 0.02; done; {answer('u', 'p')}")
    deadline = Deadline()
    threading.Timer(0.1, deadline.cancel).start()
    with under(deadline), pytest.raises(Interrupted):
        user.credentials().for_host("ghcr.io")
    (tmp_path / "go").touch()
