"""Whose home it is: an ordinary user whose HOME is another's, and one who is uid 0 of a user namespace."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from regfs.process.user import configuration_directory, home_directory, is_root_of_machine, may_write
from tests.conftest import missing
from tests.support.mounted import as_user, environment_for, regfs_command

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="a second user, and a password database of its own, need root"
)


class Alice:
    """An ordinary user with a home in the password database, which her mount namespace has to herself."""

    def __init__(self, directory: Path, uid: int) -> None:
        self.uid = uid
        self.home = directory / "alice"
        self.closed = directory / "root"
        self.mountpoint = directory / "alice/mnt"
        self._passwd = directory / "passwd"
        self._passwd.write_text(f"root:x:0:0::{self.closed}:/bin/sh\nalice:x:{uid}:{uid}::{self.home}:/bin/sh\n")
        for made, owner in ((self.home, uid), (self.mountpoint, uid), (self.closed, 0)):
            made.mkdir(mode=0o700)
            os.chown(made, owner, owner)

    def run(
        self, *commands: list[str], home: str | None, prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run *commands* one after the other with HOME=*home* (None: without)."""
        environment: Mapping[str, str] = environment_for(Path(home or ""))
        environment = {name: value for name, value in environment.items() if name != "HOME" or home is not None}
        if home == "":
            environment = {**environment, "HOME": ""}
        script = " && ".join(shlex.join([*as_user(self.uid), *prefix, *command]) for command in commands)
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", f"mount --bind {self._passwd} /etc/passwd && {script}"],
            env=environment, capture_output=True, text=True, check=False, timeout=100, cwd="/",
        )  # fmt: skip

    def home_found(self, home: str | None, prefix: tuple[str, ...] = ()) -> str:
        """Return what regfs takes for her home, where HOME is *home*."""
        program = "import os; from regfs.process.user import home_directory; print(home_directory(os.environ))"
        done = self.run([sys.executable, "-c", program], home=home, prefix=prefix)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")


@pytest.fixture
def alice(ordinary_user: int | None) -> Iterator[Alice]:
    if ordinary_user is None:
        pytest.skip("a second user, and a password database of its own, need root")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        missing("this system allows no mount namespaces")
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to other users
        os.chmod(name, 0o755)
        yield Alice(Path(name), ordinary_user)


IN_A_USER_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


@pytest.mark.parametrize("home", [None, "", "relative", "closed", "closed/below"])
def test_the_home_is_that_of_the_password_database_where_home_is_none_of_hers(alice: Alice, home: str | None) -> None:
    text = home.replace("closed", str(alice.closed)) if home else home
    assert alice.home_found(text) == str(alice.home)


def test_the_variable_home_counts_where_it_may_be_hers(alice: Alice) -> None:
    other = alice.home / "other"
    other.mkdir()
    os.chown(other, alice.uid, alice.uid)
    assert alice.home_found(str(other)) == str(other)
    assert alice.home_found("/not/there/yet") == "/not/there/yet"


def test_a_mount_with_the_home_of_root_needs_nothing_of_roots(alice: Alice) -> None:
    """What mount(8) with the word `user` does: PermissionError: '/root/.config/containers/registries.conf.d'."""
    mounted = alice.run(
        [*regfs_command(), "--default-registry", "127.0.0.1:9", "--log-file", str(alice.home / "log"),
         str(alice.mountpoint)],
        ["sh", "-c", f"ls {alice.mountpoint}/127.0.0.1:9/some/tag; true"],
        [*regfs_command(), "umount", str(alice.mountpoint)],
        home=str(alice.closed),
    )  # fmt: skip
    assert mounted.returncode == 0, mounted.stderr
    assert "Traceback" not in mounted.stderr + (alice.home / "log").read_text()
    assert "Input/output error" not in mounted.stderr
    assert (alice.home / ".cache/regfs/references.sqlite").exists()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_authorities_that_are_named_in_a_closed_home_are_no_traceback(alice: Alice, variable: str) -> None:
    """`sudo --preserve-env` hands the variable on; what cannot be read is told when a certificate is to be verified."""
    path = str(alice.closed / "ca.pem")
    program = (
        f"from regfs.registry.hosts.certificates import system_authorities; "
        f"print(*system_authorities({{{variable!r}: {path!r}}}))"
    )
    done = alice.run([sys.executable, "-c", program], home=None)
    assert path in done.stdout.split(), done.stderr


@pytest.mark.parametrize("word", ["du", "ls", "prune", "verify"])
def test_a_cache_that_the_user_may_not_reach_is_told_in_one_line(alice: Alice, word: str) -> None:
    """PermissionError: '/root/.cache/regfs', where XDG_CACHE_HOME or --cache-dir names it."""
    cache = alice.closed / ".cache/regfs"
    done = alice.run([*regfs_command(), "cache", word, "--cache-dir", str(cache)], home=None)
    reason = "Permission denied; --cache-dir names another directory"
    assert (done.returncode, done.stderr) == (1, f"regfs: {cache}: {reason}\n")


def test_uid_0_of_a_user_namespace_keeps_its_cache_in_the_home(alice: Alice) -> None:
    """`podman unshare regfs …`: Permission denied: '/var/cache/regfs/regfs.log'."""
    assert alice.home_found(str(alice.closed), IN_A_USER_NAMESPACE) == str(alice.home)
    mount = shlex.join([*regfs_command(), "--default-registry", "127.0.0.1:9", "--quiet", str(alice.mountpoint)])
    look = f"cat {alice.mountpoint}/.regfs/version && {shlex.join(regfs_command())} umount {alice.mountpoint}"
    done = alice.run(
        ["sh", "-c", f"{mount} && {look}"],
        home=str(alice.closed), prefix=IN_A_USER_NAMESPACE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be used" not in done.stderr
    assert (alice.home / ".cache/regfs/references.sqlite").exists()


def test_a_namespaces_root_is_not_the_machines(alice: Alice) -> None:
    program = "from regfs.process.user import is_root_of_machine; print(is_root_of_machine())"
    done = alice.run([sys.executable, "-c", program], home=None, prefix=IN_A_USER_NAMESPACE)
    assert done.stdout == "False\n", done.stderr


@needs_root
def test_root_is_root_and_keeps_the_home_that_is_set(tmp_path: Path) -> None:
    assert home_directory({"HOME": str(tmp_path)}) == str(tmp_path)
    if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
        assert is_root_of_machine()


def test_files_can_be_made_in_what_is_not_there_yet_as_the_nearest_directory_says(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o600)
    assert may_write(tmp_path / "var/cache/regfs")
    assert not may_write(tmp_path / "file/regfs")


@pytest.mark.parametrize("configured", ["", "relative"])
def test_a_configuration_directory_that_is_not_absolute_counts_as_unset(configured: str) -> None:
    environment = {"HOME": "/not/there/yet", "XDG_CONFIG_HOME": configured}
    assert configuration_directory(environment) == Path("/not/there/yet/.config")
