"""What a program of an image sees when `regfs run` or `regfs shell` runs it, and what is said where it cannot."""

from __future__ import annotations

import signal

from tests.run.runner import Runner
from tests.support.hello import MESSAGE, host_architecture


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
        (("-w", "/etc/passwd", "--"), "tools", "/etc/passwd: it is not a directory of the image"),
        (("--", ""), "tools", "has an empty name"),
        (("--network", "bridge", "--"), "tools", "host and none"),
        (("--keep", "/proc/x", "--"), "tools", "--keep /proc/x"),
    ):
        done = user(*words, image=image)
        assert (done.returncode, said in done.stderr) == (125, True), done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_environment_directory_and_user_are_those_that_were_asked_for(runner: Runner) -> None:
    done = runner("-e", "A=b", "-e", "TERM", "-e", "COLOUR=blue", "-w", "/made", "-u", "alice", "--", "sh", "-c",
                  "pwd; id -u; id -g; echo $HOME; env | grep -E 'A=|TERM|COLOUR' | sort || :; env")  # fmt: skip
    lines = done.stdout.split()
    assert lines[:2] == ["/made", "0"], done
    assert {"A=b", "TERM=vt100", "COLOUR=blue", "HOME=/home/alice"} <= set(lines)


def test_the_entrypoint_takes_the_command_as_its_words(user: Runner) -> None:
    assert user("--entrypoint", "cat", "--", "/etc/group").stdout == "wheel:x:10:alice,root\n"


def test_a_user_that_the_namespace_lacks_is_refused_and_the_images_own_gives_way(user: Runner) -> None:
    done = user("-u", "daemon", "--owner", "me", "--", "id")
    assert (done.returncode, "uid 1 does not exist in your user namespace" in done.stderr) == (125, True), done.stderr
    done = user("--owner", "me", image="daemon")
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
    assert "wants to run as daemon; it runs as its root" in done.stderr


def test_root_of_the_machine_gives_a_program_no_way_to_change_it(root: Runner) -> None:
    done = root("--", "sh", "-c", "grep CapBnd /proc/self/status; cat /proc/sys/kernel/core_pattern > /x; "
        "cat /x > /proc/sys/kernel/core_pattern; "
                  "mkdir /m; mount -t tmpfs t /m; :")  # fmt: skip
    assert done.stdout.split() == ["CapBnd:", "00000000800405fb"]
    assert "Read-only file system" in done.stderr, done.stderr
    assert "permission denied" in done.stderr


def test_a_shell_reads_commands_from_standard_input(runner: Runner) -> None:
    done = runner(verb="shell", given="echo from a shell; exit 9\n")
    assert (done.stdout, done.returncode) == ("from a shell\n", 9), done.stderr


def test_an_image_without_a_shell_says_how_to_bring_one(user: Runner) -> None:
    done = user(verb="shell", image="hello")
    assert (done.returncode, "has no shell" in done.stderr, "busybox" in done.stderr) == (125, True, True)
