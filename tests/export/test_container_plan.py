"""What `regfs run` makes of its words and of the image's config: argv, environment, user, volumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from regfs.cli.verbs import load_verb
from regfs.errors import BadManifest, InvalidOption, MountFailure
from regfs.export.container.id_maps import whole_map
from regfs.export.container.plan import Asked, Plan, Volume, parse_env, parse_volume, plan_of
from regfs.export.container.program import User, find_user
from regfs.model.run_config import RunConfig, parse_run_config
from regfs.process.subordinate_ids import IdRange, outside_id, parse_ranges
from regfs.process.user import FALLBACK_PATH

IMAGE = RunConfig(("/entry", "-x"), ("serve",), ("A=1", "B=x=y"), "alice", "/srv")
PASSWD = "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\nbroken\n0:x:5:5::/five:/bin/sh\n"
GROUP = "users:x:100:\nwheel:x:10:alice,root\naudio:x:29:bob,alice\n"


@pytest.mark.parametrize(
    ("asked", "argv"),
    [
        (Asked(), ("/entry", "-x", "serve")),
        (Asked(command=("ls", "-l")), ("/entry", "-x", "ls", "-l")),
        (Asked(entrypoint="/bin/sh"), ("/bin/sh",)),
        (Asked(entrypoint="/bin/sh", command=("-c", "true")), ("/bin/sh", "-c", "true")),
        (Asked(entrypoint="", command=("ls",)), ("ls",)),
    ],
)
def test_entrypoint_and_command_follow_dockers_rules(asked: Asked, argv: tuple[str, ...]) -> None:
    assert plan_of(IMAGE, asked).argv == argv


def test_an_image_without_a_program_needs_a_command() -> None:
    with pytest.raises(InvalidOption, match=r"demo/empty names no program of its own.*regfs run demo/empty COMMAND"):
        plan_of(RunConfig(), Asked(), image="demo/empty")
    assert plan_of(RunConfig(), Asked(command=("ls",))).argv == ("ls",)


def test_the_environment_is_the_images_with_what_was_asked_for_on_top() -> None:
    plan = plan_of(IMAGE, Asked(env=(("A", "2"), ("C", ""))))
    assert plan.env == {"PATH": FALLBACK_PATH, "A": "2", "B": "x=y", "C": ""}
    assert plan_of(RunConfig(env=("PATH=/bin",)), Asked(command=("x",))).env == {"PATH": "/bin"}
    assert plan_of(IMAGE, Asked(has_terminal=True), terminal="vt100").env["TERM"] == "vt100"


def test_user_and_directory_are_the_images_unless_asked_for() -> None:
    plan = plan_of(IMAGE, Asked())
    assert (plan.user, plan.is_user_asked, plan.directory) == ("alice", False, "/srv")
    plan = plan_of(IMAGE, Asked(user="0", directory="/x"))
    assert (plan.user, plan.is_user_asked, plan.directory) == ("0", True, "/x")
    assert plan_of(RunConfig(), Asked(command=("x",))).directory == "/"


def test_a_plan_reaches_another_process_as_it_is() -> None:
    plan = plan_of(IMAGE, Asked(), image="i", image_platform="linux/arm64", machine_platform="linux/amd64")
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("/a:/b", Volume("/a", "/b")),
        ("/a:/b:ro", Volume("/a", "/b", is_read_only=True)),
        ("/a:/b:rw", Volume("/a", "/b")),
        ("a/b:/c", Volume("/here/a/b", "/c")),
        (".:/c", Volume("/here", "/c")),
        ("/m/127.0.0.1:5000/x:/c:ro", Volume("/m/127.0.0.1:5000/x", "/c", is_read_only=True)),
        ("/m/sha256:ab:/c:d", Volume("/m/sha256:ab", "/c:d")),
    ],
)
def test_a_volume_may_have_colons_in_its_path_on_the_machine(text: str, volume: Volume) -> None:
    assert parse_volume(text, directory="/here") == volume


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a",
        "/a:",
        ":/b",
        "/a:b",
        "a:b:ro",
        "/a:ro",
        "/a:/",
        "/a://:ro",
        "/a:/x/..",
        "/a:/proc",
        "/a:/x/../proc/sys",
    ],
)
def test_a_volume_without_both_paths_or_in_the_place_of_proc_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="-v"):
        parse_volume(text, directory=str(Path.cwd()))


def test_a_variable_without_a_value_has_the_one_from_outside() -> None:
    assert list(parse_env(["A=1", "B", "C", "D="], {"B": "2"})) == [("A", "1"), ("B", "2"), ("D", "")]
    with pytest.raises(InvalidOption, match="NAME=VALUE"):
        list(parse_env(["=x"], {}))


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (10,), "/root")),
        ("alice", User(1000, 100, (10, 29), "/home/alice")),
        ("1000", User(1000, 100, (10, 29), "/home/alice")),
        ("alice:audio", User(1000, 29, (), "/home/alice")),
        ("alice:7", User(1000, 7, (), "/home/alice")),
        ("4242", User(4242, 0)),
        ("4242:4243", User(4242, 4243)),
    ],
)
def test_users_are_looked_up_in_the_images_own_files(text: str, user: User) -> None:
    passwd = PASSWD.replace("0:x:5:5::/five:/bin/sh\n", "")
    assert find_user(text, passwd=passwd, group=GROUP) == user


def test_a_user_whose_name_is_a_number_comes_before_the_number() -> None:
    assert find_user("0", passwd=PASSWD, group=GROUP).uid == 5


@pytest.mark.parametrize("text", ["bob", "alice:nogroup", "-1"])
def test_users_and_groups_that_the_image_lacks_are_refused(text: str) -> None:
    with pytest.raises(MountFailure, match=r"/etc/(passwd|group) has no"):
        find_user(text, passwd=PASSWD, group=GROUP)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["IMAGE"], ()),
        (["-it", "IMAGE", "ls", "-l", "--help"], ("ls", "-l", "--help")),
        (["-e", "A=1", "--env=B", "IMAGE", "env", "-e"], ("env", "-e")),
        (["-itv", "/a:/b", "-w/x", "IMAGE", "sh", "-v"], ("sh", "-v")),
        (["--cache-dir", "c", "--offline", "IMAGE", "--", "x"], ("--", "x")),
        (["-q", "--", "IMAGE", "-x"], ("-x",)),
    ],
)
def test_what_follows_the_image_is_the_commands(words: list[str], command: tuple[str, ...]) -> None:
    given, unknown = load_verb("run").parser().parse_known_intermixed_args(words)
    assert (given.image, given.command, unknown) == ("IMAGE", command, [])


def test_help_after_the_image_is_the_commands_own() -> None:
    parser = load_verb("run").parser()
    assert list(parser.own_words(["-it", "IMAGE", "ls", "--help"])) == ["-it", "IMAGE"]
    assert list(parser.own_words(["-e", "A", "--help"])) == ["-e", "A", "--help"]


def test_a_config_says_how_to_run_and_nothing_where_it_is_silent() -> None:
    content = b'{"config": {"Entrypoint": null, "Cmd": ["a"], "Env": ["A=b"], "User": "x", "WorkingDir": "/w"}}'
    assert parse_run_config(content) == RunConfig((), ("a",), ("A=b",), "x", "/w")
    assert parse_run_config(b"{}") == parse_run_config(b'{"config": null}') == RunConfig()


@pytest.mark.parametrize(
    "config", ['{"Cmd": "sh"}', '{"Cmd": [1]}', '{"cmd": []}', '{"Env": ["A=\\u0000"]}', '{"User": 0}', "[]"]
)
def test_a_config_that_programs_could_read_differently_is_refused(config: str) -> None:
    with pytest.raises(BadManifest):
        parse_run_config(f'{{"config": {config}}}'.encode())


def test_subordinate_ids_follow_the_users_own() -> None:
    text = "other:1:1\nme:100000:10\n# comment\nme:x:1\n4242:500000:5\nme:7\n"
    ranges = list(parse_ranges(text, {"me", "4242"}))
    assert ranges == [IdRange(1, 100000, 10), IdRange(11, 500000, 5)]
    assert whole_map(4242, ranges)[0] == IdRange(0, 4242, 1)
    outside = [outside_id(inside, own=4242, ranges=ranges, missing=65534) for inside in (0, 1, 10, 11, 15, 16)]
    assert outside == [4242, 100000, 100009, 500000, 500004, 65534]
