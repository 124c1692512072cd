"""The command line: what is understood, what is said where it is not, and with which code it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from regfs import __version__
from regfs.app.config import OPTIONS
from regfs.cli.main import guarded, run
from regfs.cli.mistaken_verbs import verb_like_words
from regfs.cli.verbs import VERBS
from regfs.errors import InvalidOption, NotFound
from tests.support.mounted import environment_for, mounts_at, regfs_command, run_regfs

MOUNT_HELPER = [sys.executable, "-c", "from regfs.cli import mount_main; mount_main()"]


def regfs(
    *arguments: str | Path, directory: Path, command: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    if command is None:
        return run_regfs(*arguments, home=directory)
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment_for(directory), cwd=directory, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def refusal(*arguments: str) -> str:
    with pytest.raises(InvalidOption) as caught:
        run(arguments, {"HOME": "/nowhere"})
    return str(caught.value)


def test_version_names_what_it_would_run_with(tmp_path: Path) -> None:
    done = regfs("--version", directory=tmp_path, command=regfs_command())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"regfs {__version__}"
    assert {line.partition(":")[0] for line in done.stdout.splitlines()[1:]} >= {"Python", "kernel", "driver"}


def test_help_tells_every_option_under_a_heading(tmp_path: Path) -> None:
    text = regfs("--help", directory=tmp_path).stdout
    assert all(f"--{option.name}" in text for option in OPTIONS)
    assert all(f"\n{heading}:\n" in text for heading in ("mounting", "registries", "cache", "log"))


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"mount"}))
def test_every_verb_has_help(verb: str, tmp_path: Path) -> None:
    done = regfs(verb, "--help", directory=tmp_path)
    assert (done.returncode, done.stdout.startswith(f"usage: regfs {verb}")) == (0, True)


def test_help_tells_every_verb(tmp_path: Path) -> None:
    text = regfs("--help", directory=tmp_path).stdout
    assert all(f"\n  regfs {name} " in text for name, verb in VERBS.items() if verb.summary)
    assert regfs("help", directory=tmp_path).stdout == text


def test_help_begins_with_the_ten_verbs_that_matter_first(tmp_path: Path) -> None:
    """Four screens of options stood before them."""
    lines = regfs("--help", directory=tmp_path).stdout.splitlines()
    verbs = [line.split()[1] for line in lines if line.startswith("  regfs ") and "[OPTIONS] [SOURCE]" not in line]
    assert verbs[:10] == ["ls", "cat", "cp", "inspect", "diff", "run", "mount", "umount", "status", "doctor"]
    assert len(verbs) == len(set(verbs))
    assert lines.index("mounting:") > lines.index("this machine:")


def test_help_of_a_verb_is_that_verbs_help(tmp_path: Path) -> None:
    assert regfs("help", "cache", directory=tmp_path).stdout == regfs("cache", "--help", directory=tmp_path).stdout


@pytest.mark.parametrize("words", [("help", "cache", "du"), ("cache", "help"), ("cache", "help", "du")])
def test_help_of_a_word_of_cache_is_the_help_of_cache(words: tuple[str, ...], tmp_path: Path) -> None:
    assert regfs(*words, directory=tmp_path).stdout == regfs("cache", "--help", directory=tmp_path).stdout


def test_cache_alone_says_which_word_is_missing(tmp_path: Path) -> None:
    done = regfs("cache", directory=tmp_path)
    assert (done.returncode, done.stderr) == (2, "regfs: required: du|ls|rm|prune|verify\n")


def test_a_log_file_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for more in ((), ("-f",)):
        done = regfs("--offline", "--log-file", "/nowhere/log", "m", *more, directory=tmp_path)
        assert done.stderr == (
            "regfs: the log file /nowhere/log cannot be written: No such file or directory; choose another with "
            "--log-file\n"
        )


def test_version_is_a_verb_too(tmp_path: Path) -> None:
    assert regfs("version", directory=tmp_path).stdout == regfs("--version", directory=tmp_path).stdout


@pytest.mark.parametrize("word", sorted(verb_like_words()))
def test_a_verb_of_another_tool_is_answered_and_never_mounts(word: str) -> None:
    for arguments in ([word, "/mnt"], [word], [word, "--help"], ["-q", word, "/mnt"], [word, "a", "b", "c"]):
        said = refusal(*arguments)
        assert said.startswith(f"{word} is not a verb of regfs; ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "M"], "did you mean regfs ls IMAGE"),
        (["pull", "debian"], "did you mean regfs prefetch IMAGE"),
        (["unmout", "M"], "did you mean regfs unmount?"),
        (["statsu"], "did you mean regfs status?"),
        (["Prefech", "debian"], "did you mean regfs prefetch?"),
        (["--offline", "prefetch", "debian"], "options come after the verb: regfs prefetch"),
        (["mount", "docker.io", "/mnt"], "regfs docker.io /mnt mounts it"),
        (["mount"], "regfs MOUNTPOINT"),
        (["help", "prefech"], "did you mean prefetch?"),
    ],
)
def test_a_word_like_a_verb_is_answered_with_the_right_one(arguments: list[str], said: str) -> None:
    assert said in refusal(*arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "-p", "80:80", "debian"], "-p is not an option of regfs run; the network is the machine's"),
        (["run", "--memory=1g", "debian"], "systemd-run sets limits"),
        (["run", "--name", "web", "debian"], "no container that has a name"),
        (["find", "debian", "-size", "+1M"], "find(1) has it, for the image's rootfs/ in a mount"),
        (["find", "debian", "-nmae", "x"], "did you mean -name?"),
    ],
)
def test_an_option_of_docker_run_or_find_is_answered_with_what_takes_its_place(arguments: list[str], said: str) -> None:
    """`regfs run --name web` asked whether --owner was meant."""
    assert said in refusal(*arguments)


def test_a_directory_that_is_called_like_a_verb_can_be_given_with_a_dot(tmp_path: Path) -> None:
    for name in ("./ls", "./statsu", "mnt", "./localhost", "sub/mnt"):
        done = regfs(name, directory=tmp_path)
        assert (done.returncode, done.stderr.count("does not exist; create it: mkdir")) == (1, 1), name


def test_a_directory_that_is_nearly_called_like_a_verb_is_a_mount_point(tmp_path: Path) -> None:
    (tmp_path / "caches").touch()
    assert "did you mean regfs cache?" in regfs("caches", directory=tmp_path).stderr
    (tmp_path / "caches").unlink()
    (tmp_path / "caches").mkdir()
    assert "/nowhere/log cannot be written" in regfs("--log-file", "/nowhere/log", "caches", directory=tmp_path).stderr


@pytest.mark.parametrize("words", [["unmount"], ["-u"], ["-uz"], ["--unmount"], ["umount", "-u"], ["umount", "-uz"]])
def test_what_other_tools_unmount_with_unmounts(words: list[str], tmp_path: Path) -> None:
    done = regfs(*words, tmp_path, directory=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"regfs: nothing is mounted on {tmp_path}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_prefetch_that_a_signal_ends_has_the_code_of_the_signal(number: signal.Signals, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/no/image"
        command = [*regfs_command(), "prefetch", "--cache-dir", "cache", image]
        with subprocess.Popen(command, env=environment_for(tmp_path), cwd=tmp_path) as verb:
            connection, _ = silent.accept()  # the verb is at work
            verb.send_signal(number)
            assert verb.wait(timeout=100) == 128 + number
            connection.close()


def test_a_prefetch_that_is_started_with_sigterm_ignored_goes_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/no/image"
        command = [*regfs_command(), "prefetch", "--cache-dir", "cache", image]
        words = ["sh", "-c", 'trap "" TERM; exec "$@"', "sh", *command]
        with subprocess.Popen(words, env=environment_for(tmp_path), cwd=tmp_path, stderr=subprocess.DEVNULL) as verb:
            connection, _ = silent.accept()  # the verb is at work
            verb.send_signal(signal.SIGTERM)
            connection.close()
            silent.close()
            assert verb.wait(timeout=100) == 5


@pytest.mark.parametrize(
    "words",
    [
        ["umount", ""],
        ["umount", "--lazy", ""],
        ["status", ""],
        ["refresh", "/mnt", ""],
        ["path", "--mount", "", "app:1"],
        ["unpack", "app:1", ""],
        ["prefetch", "--file", ""],
        ["cache", "--cache-dir", "", "du"],
        ["--log-file", "", "/mnt"],
        ["-o", "cache_dir=", "/mnt"],
        ["", ""],
        ["docker.io", ""],
        [""],
    ],
    ids=str,
)
def test_an_empty_path_is_not_the_working_directory(words: list[str]) -> None:
    """`regfs umount "$DIR"` with DIR unset once looked for a mount on the working directory."""
    assert "the path is empty" in refusal(*words)


def test_the_mount_helper_takes_no_empty_path(tmp_path: Path) -> None:
    done = regfs("docker.io", "", "-f", directory=tmp_path, command=MOUNT_HELPER)
    assert (done.returncode, done.stderr) == (1, "regfs: the path is empty\n")


@pytest.mark.parametrize("verb", ["unpack", "prefetch"])
def test_an_empty_name_is_no_image(verb: str, tmp_path: Path) -> None:
    done = regfs(verb, "", directory=tmp_path)
    assert (done.returncode, done.stderr) == (2, "regfs: an empty name is not an image\n")


@pytest.mark.parametrize("words", ["help", "help umount", "--help", "version", "--version", "cache ls --help"])
def test_a_reader_that_has_enough_ends_a_verb_quietly_like_any_program_in_a_pipe(words: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*regfs_command(), *words.split()], env=environment_for(tmp_path), stdout=writer, stderr=subprocess.PIPE,
        timeout=100, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_hangup_does_not_end_a_verb(tmp_path: Path) -> None:
    """`pkill -HUP regfs` once ended a prefetch in the middle of a layer, and so did the end of the terminal."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/no/image"
        command = [*regfs_command(), "prefetch", "--cache-dir", "cache", image]
        with subprocess.Popen(
            command, env=environment_for(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as verb:
            connection, _ = silent.accept()  # the verb is at work
            verb.send_signal(signal.SIGHUP)
            connection.close()
            silent.close()
            verb.communicate(timeout=100)
            assert verb.returncode == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cache-sice", "1", "/mnt"], "did you mean --cache-size?"),
        (["-o", "cash_size=1", "/mnt"], "did you mean cache_size?"),
        (["--tag-ttl", "soon", "/mnt"], "tag-ttl: 'soon' is not a duration"),
        ([], "a mount point is needed"),
        (["a", "b", "c"], "too many words"),
        (["http://registry", "/mnt"], "leave out http://"),
        (["prefetch", "--platform", "amd64/linux", "a"], "did you mean linux/amd64?"),
        (["unpack", "--platfrom", "x", "image"], "did you mean --platform?"),
        (["umount"], "MOUNTPOINT"),
        (["umount", "a", "b"], "one word too many"),
    ],
)
def test_what_is_not_understood_is_named(arguments: list[str], said: str) -> None:
    assert said in refusal(*arguments)


@pytest.mark.parametrize("source", ["debian:12", "debian", "library/debian", "ghcr.io/owner/app:1", "app@sha256:00"])
def test_an_image_is_not_mounted_as_a_registry_of_that_name(source: str) -> None:
    said = refusal(source, "/mnt/x")
    assert said.startswith(f"{source} is an image: mount a registry (regfs /mnt/x), then look into /mnt/x/{source}")


@pytest.mark.parametrize("verb", ["unpack", "prefetch"])
def test_a_url_as_image_is_answered_with_leave_out_http(verb: str, tmp_path: Path) -> None:
    done = regfs(verb, "http://registry:5000/demo/app:1", directory=tmp_path)
    assert (done.returncode, "leave out http://" in done.stderr) == (2, True)
    assert list(tmp_path.glob("rootfs")) == []


@pytest.mark.parametrize("source", ["docker.io", "https://ghcr.io/", "registry:5000", "127.0.0.1:80", "localhost:443"])
def test_a_registry_is_a_source(source: str, tmp_path: Path) -> None:
    done = regfs(source, tmp_path / "missing", directory=tmp_path)
    assert "does not exist; create it" in done.stderr


@pytest.mark.parametrize("words", [("/mnt/zz", "/mnt/reg"), ("./zz", "ghcr.io"), ("../zz", "/mnt")])
def test_a_path_as_source_asks_whether_the_words_were_swapped(words: tuple[str, str]) -> None:
    assert refusal(*words) == f"SOURCE {words[0]!r} is not a registry; did you swap SOURCE and MOUNTPOINT?"


def test_a_registry_or_an_image_alone_lacks_a_mount_point(tmp_path: Path) -> None:
    for word in ("127.0.0.1:5000", "docker.io", "localhost"):
        assert refusal(word).startswith(f"MOUNTPOINT is missing: regfs {word} DIR")
    for word in ("debian:12", "ghcr.io/owner/app"):
        assert refusal(word).startswith(f"MOUNTPOINT is missing: regfs DIR, then look into DIR/{word}")
    (tmp_path / "docker.io").touch()
    assert regfs("docker.io", directory=tmp_path).stderr.endswith("docker.io is not a directory\n")


def test_options_may_stand_before_between_and_after(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    for arguments in (["--offline", "ghcr.io", missing], ["ghcr.io", "--offline", missing], ["ghcr.io", missing, "-q"]):
        done = regfs(*arguments, directory=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"regfs: {missing} does not exist; create it: mkdir {missing}\n"


def test_a_wrong_option_ends_with_two_and_one_line(tmp_path: Path) -> None:
    done = regfs("--nonsense", tmp_path, directory=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_file_is_no_mount_point(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = regfs(tmp_path / "file", directory=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"regfs: {tmp_path}/file is not a directory\n")


def test_umount_of_nothing_says_so(tmp_path: Path) -> None:
    done = regfs("umount", tmp_path, directory=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"regfs: nothing is mounted on {tmp_path}\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")
def test_umount_leaves_other_peoples_mounts_alone(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "lab", str(tmp_path)], check=True)
    try:
        done = regfs("umount", tmp_path, directory=tmp_path.parent)
        assert (done.returncode, mounts_at(tmp_path)) == (1, ["tmpfs"])
        assert "is a mount of another kind (tmpfs, lab)" in done.stderr
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("error", "code"),
    [(InvalidOption("x"), 2), (NotFound("x"), 3), (KeyboardInterrupt(), 130), (BrokenPipeError(), 141)],
)
def test_the_exit_code_tells_what_kind_of_failure_it_was(error: BaseException, code: int) -> None:
    def fail() -> int:
        raise error

    assert guarded(fail) == code


def test_what_is_fetched_by_unpack_but_not_there_ends_with_three(tmp_path: Path) -> None:
    done = regfs("unpack", "--offline", "--cache-dir", tmp_path / "cache", "localhost:1/no/image", directory=tmp_path)
    assert done.returncode == 5
    assert re.search(r"offline", done.stderr, re.IGNORECASE)


# mount.regfs


def test_the_mount_helper_takes_f_for_fake(tmp_path: Path) -> None:
    done = regfs("docker.io", tmp_path, "-f", "-o", "rw", directory=tmp_path, command=MOUNT_HELPER)
    assert (done.returncode, done.stderr, mounts_at(tmp_path)) == (0, "", [])


def test_the_mount_helper_takes_all_that_mount_passes(tmp_path: Path) -> None:
    words = "rw,noexec,nosuid,nodev,cache_size=10G,_netdev,nofail,user"
    done = regfs("docker.io", tmp_path, "-f", "-s", "-n", "-v", "-o", words, directory=tmp_path, command=MOUNT_HELPER)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sloppy_mount_warns_of_unknown_words(tmp_path: Path) -> None:
    done = regfs("docker.io", tmp_path, "-f", "-s", "-o", "nonsense", directory=tmp_path, command=MOUNT_HELPER)
    assert (done.returncode, "nonsense" in done.stderr) == (0, True)
    done = regfs("docker.io", tmp_path, "-f", "-o", "nonsense", directory=tmp_path, command=MOUNT_HELPER)
    assert (done.returncode, "nonsense" in done.stderr) == (1, True)


def test_the_mount_helper_ends_with_mounts_own_codes(tmp_path: Path) -> None:
    done = regfs("docker.io", tmp_path / "missing", directory=tmp_path, command=MOUNT_HELPER)
    assert (done.returncode, "does not exist" in done.stderr) == (32, True)


def test_programs_are_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    assert guarded(lambda: int("/usr/bin" not in os.environ["PATH"])) == 0
