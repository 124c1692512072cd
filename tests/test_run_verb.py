"""`regfs run` and `regfs shell`: programs of an image, isolated, as root and as an ordinary user."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.e2e.conftest import becomes
from tests.support import preloaded
from tests.support.erofs import needs_erofs
from tests.support.fault_server import FaultServer
from tests.support.hello import MESSAGE, hello_program, host_architecture
from tests.support.images import BuiltImage, directory, file, image_of, layer, symlink
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import as_user, environment_for, mountinfo, processes_naming, regfs_command, wait_for_exit
from tests.support.real_root import busybox

_PATIENCE_S = 60.0
_PROMPT = b"# \x1b[6n"  # busybox asks the terminal where its cursor is
_APPLETS = (
    "sh",
    "cat",
    "id",
    "ls",
    "sleep",
    "touch",
    "rm",
    "mkdir",
    "chown",
    "stat",
    "tty",
    "env",
    "ip",
    "dd",
    "grep",
    "mount",
)
_PASSWD = b"root:x:0:0::/root:/bin/sh\nalice:x:0:0::/home/alice:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n"


def _tools() -> BuiltImage:
    program = busybox()
    if program is None:
        missing("busybox is not installed")
    links = [symlink(f"bin/{name}", "busybox") for name in _APPLETS]
    return image_of(
        layer(file("bin/busybox", program.read_bytes(), mode=0o755), *links),
        layer(
            directory("root", mode=0o700), directory("etc", uid=1, gid=1), file("etc/passwd", _PASSWD, uid=1, gid=1),
            file("etc/group", b"wheel:x:10:alice,root\n"), file("etc/other", b"1\n", uid=33, gid=33),
        ),
        architecture=host_architecture(), command=["cat", "/etc/other"],
        run={"Env": ["COLOUR=red", "PATH=/bin"], "WorkingDir": "/srv/work"},
    )  # fmt: skip


def _elsewhere() -> BuiltImage:
    other = "aarch64" if host_architecture() == "amd64" else "x86_64"
    name = "arm64" if host_architecture() == "amd64" else "amd64"
    return image_of(layer(file("hello", hello_program(other), mode=0o755)), architecture=name, command=["/hello"])


@pytest.fixture(scope="module")
def server(needs_fuse: None) -> Iterator[FaultServer]:
    """A registry with images below demo/; demo/many has 200 layers, demo/daemon a user of its own."""
    application = MemoryRegistry()
    hello = image_of(
        layer(file("hello", hello_program(), mode=0o755)), architecture=host_architecture(), command=["/hello"]
    )
    many = [layer(file(f"d/{number:03}", b"x")) for number in range(199)]
    images = {
        "hello": hello,
        "tools": _tools(),
        "empty": image_of(layer(), architecture=host_architecture()),
        "elsewhere": _elsewhere(),
        "daemon": image_of(
            *_tools().layers, architecture=host_architecture(), command=["id", "-u"], run={"User": "daemon"}
        ),
        "many": image_of(*many, *hello.layers, architecture=host_architecture(), command=["/hello"]),
    }
    for name, image in images.items():
        for content in image.blobs().values():
            application.add_blob(f"demo/{name}", content)
        application.add_manifest(f"demo/{name}", image.manifest, tag="latest", media_type=image.media_type)
    with FaultServer(application) as served:
        yield served


class Runner:
    """Runs `regfs run` as one user, with a home and a cache that the tests of this module share."""

    def __init__(self, server: FaultServer, uid: int | None, directory: Path) -> None:
        self.server = server
        self.uid = uid
        self.directory = directory

    def command(self, *words: str | Path) -> list[str]:
        return [*as_user(self.uid), *regfs_command(), *self._arguments(*words)]

    def _arguments(self, *words: str | Path, verb: str = "run", image: str | None = "tools") -> list[str]:
        shown = [] if image is None else [f"{self.server.address}/demo/{image}"]
        at = words.index("--") if "--" in words else len(words)
        options, rest = words[:at], words[at + 1 :]
        return [verb, *map(str, options), *shown, *map(str, rest)]

    def environment(self) -> dict[str, str]:
        cache = {"XDG_CACHE_HOME": str(self.directory / "cache"), "TERM": "vt100"}
        return environment_for(self.directory, cache)

    def __call__(
        self, *words: str | Path, verb: str = "run", image: str | None = "tools", given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run it with options, then after "--" the command; *given* is standard input."""
        return preloaded.run(
            self._arguments(*words, verb=verb, image=image), environment=self.environment(), directory=self.directory,
            uid=self.uid, stdin=given,
        )  # fmt: skip

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start it, and return when the program has written a line, which is dropped."""
        started = subprocess.Popen(
            self.command(*words), env=self.environment(), cwd=self.directory, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert started.stdout is not None
        assert started.stdout.readline() != ""
        return started


def _runner(server: FaultServer, uid: int | None) -> Iterator[Runner]:
    directory = Path(tempfile.mkdtemp(prefix="regfs-tests-"))
    if uid is not None:
        os.chown(directory, uid, uid)
    yield Runner(server, uid, directory)
    assert [line for line in mountinfo() if str(directory) in line] == []
    shutil.rmtree(directory)


@pytest.fixture(scope="module", params=["root", "an ordinary user"])
def runner(request: pytest.FixtureRequest, server: FaultServer, ordinary_user: int | None) -> Iterator[Runner]:
    """`regfs run` in each way that it works in."""
    is_root = request.param != "an ordinary user"
    if is_root and os.geteuid() != 0:
        pytest.skip("root only")
    made = _runner(server, None if is_root else ordinary_user)
    runner = next(made)
    if not is_root and not _may_unshare(runner):
        missing("this system forbids user namespaces")
    yield runner
    next(made, None)


@pytest.fixture(scope="module")
def user(server: FaultServer, ordinary_user: int | None) -> Iterator[Runner]:
    """`regfs run` as an ordinary user."""
    made = _runner(server, ordinary_user)
    runner = next(made)
    if not _may_unshare(runner):
        missing("this system forbids user namespaces")
    yield runner
    next(made, None)


def _may_unshare(runner: Runner) -> bool:
    return subprocess.run([*as_user(runner.uid), "unshare", "-rm", "true"], check=False).returncode == 0


def test_the_images_own_program_runs(runner: Runner) -> None:
    done = runner(image="hello")
    assert (done.stdout.encode(), done.returncode) == (MESSAGE, 0), done.stderr
    assert done.stderr == ""


def test_an_image_of_two_hundred_layers_runs(runner: Runner) -> None:
    assert runner(image="many").stdout.encode() == MESSAGE


_SURVEY = """
id -u; echo $COLOUR; pwd; echo $$ > /dev/null; cat /proc/1/comm; ls /dev/pts > /dev/null && echo pts
echo new > /etc/new && cat /etc/new; echo 2 >> /etc/other && cat /etc/other; rm -r /etc && mkdir /etc && ls /etc
touch /tmp/x /dev/shm/x && echo written; cat < /dev/zero | dd count=1 of=/dev/null 2>&1 | cat > /dev/null; echo end
"""


def test_a_program_sees_its_own_machine_and_may_write_all_of_it(runner: Runner) -> None:
    done = runner("--", "sh", "-c", _SURVEY)
    assert done.stdout.split() == ["0", "red", "/srv/work", "regfs-init", "pts", "new", "1", "2", "written", "end"], (
        done
    )
    assert runner("--fuse").stdout == "1\n"  # nothing of it is left


def test_the_exit_status_is_the_programs(runner: Runner) -> None:
    assert runner("--", "sh", "-c", "exit 7").returncode == 7
    assert runner("--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_a_program_that_is_not_there_is_127_and_one_that_may_not_run_126(runner: Runner) -> None:
    done = runner("--", "nosuch")
    assert (done.returncode, "no nosuch in its PATH (/bin)" in done.stderr) == (127, True), done.stderr
    done = runner("--", "/etc/passwd")
    assert (done.returncode, "/etc/passwd cannot be executed" in done.stderr) == (126, True), done.stderr


def test_a_program_of_another_architecture_names_both_platforms(user: Runner) -> None:
    done = user(image="elsewhere")
    assert done.returncode == 126
    assert "exec format error" in done.stderr
    assert f"this machine is linux/{host_architecture()}" in done.stderr
    assert "--platform" in done.stderr


def test_what_regfs_cannot_do_is_125_and_a_sentence(user: Runner) -> None:
    for words, image, said in (
        (("--",), "nosuch", "demo/nosuch"),
        (("--",), "empty", "names no program of its own"),
        (("-v", "/nosuch:/x", "--"), "tools", "-v: /nosuch does not exist"),
        (("-v", "x:y", "--"), "tools", "write HOST:IMAGE"),
        (("-u", "nosuch", "--"), "tools", "has no user 'nosuch'"),
        (("-u", "4294967295", "--"), "tools", "the largest user or group id is 4294967294"),
        (("-w", "x", "--"), "tools", "absolute path"),
        (("-w", "/etc/passwd", "--"), "tools", "/etc/passwd: it is no directory of the image"),
        (("--", ""), "tools", "has an empty name"),
        (("--network", "bridge", "--"), "tools", "host and none"),
        (("--keep", "/proc/x", "--"), "tools", "--keep /proc/x"),
    ):
        done = user(*words, image=image)
        assert (done.returncode, said in done.stderr) == (125, True), done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_signals_reach_the_program(runner: Runner) -> None:
    for number, status in ((signal.SIGTERM, 3), (signal.SIGINT, 4), (signal.SIGHUP, 5)):
        script = "trap 'exit 3' TERM; trap 'exit 4' INT; trap 'exit 5' HUP; echo ready; while :; do sleep 0.1; done"
        started = runner.start("--", "sh", "-c", script)
        started.send_signal(number)
        assert started.wait(_PATIENCE_S) == status
    started = runner.start("--", "sh", "-c", "echo ready; exec sleep 1000")
    started.terminate()
    assert started.wait(_PATIENCE_S) == 128 + signal.SIGTERM


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        children = Path(f"/proc/{each}/task/{each}/children")
        found += map(int, children.read_text().split()) if children.exists() else []
    return found[1:]


@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["supervisor", "entered", "process 1", "program"])
def test_a_kill_of_any_of_its_processes_ends_all_of_them(user: Runner, which: int) -> None:
    started = user.start("--", "sh", "-c", "sleep 1000 & echo ready; wait")
    processes = [started.pid, *_descendants(started.pid)]
    assert len(processes) == 5
    os.kill(processes[which], signal.SIGKILL)
    assert started.wait(_PATIENCE_S) != 0
    assert wait_for_exit(processes[1:], _PATIENCE_S) == []
    assert processes_naming(str(user.directory)) == []


# The process kills itself in the place of this call.
_KILLED = """
import os, sys
from pkgutil import resolve_name
owner, _, name = sys.argv.pop(1).rpartition(".")
owner = resolve_name(owner)
setattr(owner, name, lambda *_, **__: os.kill(os.getpid(), 9))
from regfs.cli.main import main
main()
"""
_STEPS = (
    "regfs.export.container.entering.run_first_process",
    "regfs.export.container.first_process.RootDirectory",
    "regfs.export.container.root_directory.overlay_options",
    "regfs.export.container.first_process.user_of_image",
    "regfs.export.container.first_process.become",
    "regfs.verbs.image.find_image",
    "regfs.verbs.run.plan_of",
)


@pytest.mark.parametrize("step", _STEPS)
def test_a_kill_at_any_step_leaves_no_mount_and_no_process(user: Runner, step: str) -> None:
    command = [*as_user(user.uid), sys.executable, "-c", _KILLED, step, "run", f"{user.server.address}/demo/hello"]
    killed = subprocess.run(
        command, env=user.environment(), cwd=user.directory, capture_output=True, text=True, timeout=100, check=False
    )
    assert killed.returncode != 0
    assert killed.stdout == ""
    assert [line for line in mountinfo() if line.split()[4] == "/tmp" or "/lower" in line] == []
    assert processes_naming(user.server.address, "demo/hello") == []
    assert user(image="hello").stdout.encode() == MESSAGE
    left = [path for kind in ("uses", "ingests", "locks") for path in user.directory.glob(f"cache/regfs/{kind}/*")]
    assert left == []


@needs_erofs
def test_a_kill_of_a_run_that_the_kernel_serves_leaves_nothing_mounted(server: FaultServer) -> None:
    made = _runner(server, None)
    root = next(made)
    for which in (0, 2):  # supervisor, process 1
        started = root.start("--", "sh", "-c", "sleep 1000 & echo ready; wait")
        processes = [started.pid, *_descendants(started.pid)]
        assert len(processes) == 5
        os.kill(processes[which], signal.SIGKILL)
        assert started.wait(_PATIENCE_S) != 0
        assert wait_for_exit(processes[1:], _PATIENCE_S) == []
    for step in ("regfs.verbs.run.plan_of", "regfs.export.container.first_process.RootDirectory.enter"):
        command = [sys.executable, "-c", _KILLED, step, "run", f"{server.address}/demo/tools"]
        killed = subprocess.run(
            command, env=root.environment(), cwd=root.directory, capture_output=True, timeout=100, check=False
        )
        assert (killed.returncode != 0, killed.stdout) == (True, b""), step
    assert processes_naming(server.address, "demo/tools") == []
    assert list((root.directory / "cache").glob("regfs/images/*.erofs")) != []  # the kernel had it mounted
    becomes(lambda: root("rm", f"{server.address}/demo/tools", verb="cache", image=None).returncode, 0)
    next(made, None)


def test_volumes_are_there_and_read_only_ones_stay_as_they_are(runner: Runner) -> None:
    (runner.directory / "vol").mkdir(exist_ok=True)
    (runner.directory / "vol").chmod(0o777)
    (runner.directory / "vol/in").write_text("from outside")
    done = runner("-v", "vol:/a/b", "-v", "vol/in:/etc/in:ro", "--", "sh", "-c",
                  "cat /etc/in /a/b/in; echo x > /a/b/out; echo y > /etc/in; :")  # fmt: skip
    assert done.stdout == "from outside" * 2, done.stderr
    assert "Read-only file system" in done.stderr
    assert (runner.directory / "vol/out").read_text() == "x\n"
    (runner.directory / "vol/out").unlink()


def test_without_a_network_there_is_loopback_alone(runner: Runner) -> None:
    done = runner("--network", "none", "--", "ip", "-o", "link")
    assert [line.split(":")[1].strip() for line in done.stdout.splitlines()] == ["lo"], done.stderr
    assert "UP" in done.stdout


def test_changes_are_kept_where_they_are_asked_to_be(runner: Runner) -> None:
    done = runner("--keep", "kept", "--", "sh", "-c", "echo kept > /etc/kept; rm /etc/other")
    assert done.returncode == 0, done.stderr
    assert sorted(runner("--keep", "kept", "--", "ls", "/etc").stdout.split()) == [
        "group", "hosts", "kept", "passwd", "resolv.conf",
    ]  # fmt: skip
    started = runner.start("--keep", "kept", "--", "sh", "-c", "echo ready; exec sleep 1000")
    assert "another regfs run or regfs mount is using it" in runner("--keep", "kept", "--", "ls").stderr
    started.kill()
    started.wait()


def test_environment_directory_and_user_are_those_that_were_asked_for(runner: Runner) -> None:
    done = runner("-e", "A=b", "-e", "TERM", "-e", "COLOUR=blue", "-w", "/made", "-u", "alice", "--", "sh", "-c",
                  "pwd; id -u; id -g; echo $HOME; env | grep -E 'A=|TERM|COLOUR' | sort || :; env")  # fmt: skip
    lines = done.stdout.split()
    assert lines[:2] == ["/made", "0"], done
    assert {"A=b", "TERM=vt100", "COLOUR=blue", "HOME=/home/alice"} <= set(lines)


def test_the_entrypoint_takes_the_command_as_its_words(user: Runner) -> None:
    assert user("--entrypoint", "cat", "--", "/etc/group").stdout == "wheel:x:10:alice,root\n"


def test_standard_input_is_given_only_where_it_is_asked_for(user: Runner) -> None:
    assert user("-i", "--", "cat", given="typed").stdout == "typed"
    assert user("--", "cat", given="typed").stdout == ""


def test_a_user_that_the_namespace_lacks_is_refused_and_the_images_own_gives_way(user: Runner) -> None:
    done = user("-u", "daemon", "--owner", "me", "--", "id")
    assert (done.returncode, "uid 1 does not exist in your user namespace" in done.stderr) == (125, True), done.stderr
    done = user("--owner", "me", image="daemon")
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
    assert "wants to run as daemon; it runs as its root" in done.stderr


def test_root_of_the_machine_gives_a_program_no_way_to_change_it(server: FaultServer) -> None:
    if os.geteuid() != 0:
        pytest.skip("root only")
    made = _runner(server, None)
    runner = next(made)
    done = runner("--", "sh", "-c", "grep CapBnd /proc/self/status; cat /proc/sys/kernel/core_pattern > /x; "
        "cat /x > /proc/sys/kernel/core_pattern; "
                  "mkdir /m; mount -t tmpfs t /m; :")  # fmt: skip
    assert done.stdout.split() == ["CapBnd:", "00000000800405fb"]
    assert "Read-only file system" in done.stderr, done.stderr
    assert "permission denied" in done.stderr
    next(made, None)


def test_a_shell_reads_commands_from_standard_input(runner: Runner) -> None:
    done = runner(verb="shell", given="echo from a shell; exit 9\n")
    assert (done.stdout, done.returncode) == ("from a shell\n", 9), done.stderr


def test_an_image_without_a_shell_says_how_to_bring_one(user: Runner) -> None:
    done = user(verb="shell", image="hello")
    assert (done.returncode, "has no shell" in done.stderr, "busybox" in done.stderr) == (125, True, True)


def test_a_terminal_of_its_own_has_a_name_and_passes_keys_on(runner: Runner) -> None:
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        runner.command("-it", "-e", "PS1=# ", "--", "sh"), env=runner.environment(), cwd=runner.directory,
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    _read_until(ours, _PROMPT)
    os.write(ours, b"tty\n")
    assert b"/dev/pts/0" in _read_until(ours, _PROMPT)
    os.write(ours, b"sh -c 'echo begun; exec sleep 1000'\n")
    _read_until(ours, b"\r\nbegun\r\n")
    os.write(ours, b"\x03")  # Ctrl-C ends the sleep, and not the shell
    _read_until(ours, _PROMPT)
    os.write(ours, b"exit 6\n")
    while _read_some(ours):
        pass
    assert started.wait(_PATIENCE_S) == 6
    os.close(ours)


def _read_some(terminal: int) -> bytes:
    if not select.select([terminal], [], [], _PATIENCE_S)[0]:
        return b""
    try:
        return os.read(terminal, 4096)
    except OSError:  # no process has the other side open any more
        return b""


def _read_until(terminal: int, awaited: bytes) -> bytes:
    """Return what the program says up to *awaited*, with which it pauses."""
    said, end = b"", time.monotonic() + _PATIENCE_S
    while not said.endswith(awaited) and time.monotonic() < end:
        chunk = _read_some(terminal)
        if not chunk:
            break
        said += chunk
    assert said.endswith(awaited), said
    return said


def test_an_overlay_of_ones_own_can_be_written_over_a_mount_with_owner_me(user: Runner) -> None:
    """`cannot create /etc/new: Permission denied`: the image's root has no place in a user namespace of another."""
    point = user.directory / "point"
    script = (
        f"mkdir -p {point} && $regfs mount -q --fuse --owner me $image {point} && "
        f"stat -c %u:%g:%a {point}/etc/other && "
        "unshare -rm sh -c '"
        "mount -t tmpfs t /mnt && mkdir /mnt/upper /mnt/work /mnt/all && "
        f"mount -t overlay -o lowerdir={point},upperdir=/mnt/upper,workdir=/mnt/work,userxattr overlay /mnt/all && "
        "cd /mnt/all && echo new > etc/new && echo 2 >> etc/other && cat etc/new etc/other && rm -r etc && mkdir etc"
        f"'; code=$?; $regfs umount {point} > /dev/null; exit $code"
    )
    script = script.replace("$regfs", " ".join(regfs_command()))
    script = script.replace("$image", f"{user.server.address}/demo/tools")
    done = subprocess.run(
        [*as_user(user.uid), "sh", "-c", script], env=user.environment(), cwd=user.directory, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    uid = os.getuid() if user.uid is None else user.uid
    first, *lines = done.stdout.split()
    assert lines == ["new", "1", "2"]
    assert first == f"{uid}:{uid}:644"
