"""`regfs ls`, `cat`, `cp`, `find`, `inspect`, `tags` and `repos`: an image from the command line, without a mount."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.cli.json_output import FIELDS, SCHEMA
from regfs.cli.main import run as run_regfs
from regfs.cli.terminal import tell, warn
from regfs.errors import (
    CacheFailure,
    InvalidOption,
    IsADirectory,
    NotADirectory,
    NotFound,
    RegfsError,
    Unsupported,
)
from regfs.verbs.image_paths import read_image_path
from tests.support.artifacts import TITLE, archive, artifact_of, blob, push_artifact
from tests.support.attached import BUNDLE, COSIGN_SIGN, ISSUER, SIGNED, SIGNER, SPDX, bundle, refer, statement
from tests.support.fault_server import FaultServer, reply
from tests.support.hello import host_architecture
from tests.support.images import OCI, directory, file, hardlink, image_of, layer, symlink, whiteout
from tests.support.json_shape import check, shape_of
from tests.support.memory_registry import MemoryRegistry

Regfs = Callable[..., str]
NAME = "demo/app:1"
DEPTH = 450


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    application = MemoryRegistry()
    image = image_of(
        layer(
            directory("etc"), file("etc/os-release", b"ID=demo\n", mtime_ns=86400 * 10**9),
            symlink("etc/link", "os-release"), file("bin/su", b"\x7fELF\xff", mode=0o4755),
            hardlink("bin/sudo", "bin/su"), directory("tmp", mode=0o1777),
        ),
        architecture=host_architecture(), command=["/bin/su"],
    )  # fmt: skip
    for content in image.blobs().values():
        application.add_blob("demo/app", content)
    application.add_manifest("demo/app", image.manifest, tag="1", media_type=image.media_type)
    for predicate in (SPDX, COSIGN_SIGN):
        refer(application, "demo/app", image.digest, bundle(statement(image.digest, predicate, {}), predicate))
    artifact = artifact_of(
        blob(b"weights", "application/octet-stream", {TITLE: "model.bin"}),
        blob(b"# read me", "text/plain", {TITLE: "docs/README.md"}),
        archive(
            file("site/run", b"#!", mode=0o755), symlink("site/link", "run"), media_type=f"{OCI}.layer.v1.tar+gzip",
            annotations={TITLE: "site", "io.deis.oras.content.unpack": "true"},
        ),
        kind="application/vnd.example",
    )  # fmt: skip
    push_artifact(application, "demo/model", "1", artifact)
    deep = archive(
        file("d/" * DEPTH + "end", b"end"), media_type=f"{OCI}.layer.v1.tar+gzip",
        annotations={TITLE: "deep", "io.deis.oras.content.unpack": "true"},
    )  # fmt: skip
    push_artifact(application, "demo/deep", "1", artifact_of(deep, kind="application/vnd.example"))
    push_artifact(application, "library/official", "1", artifact)
    with FaultServer(application) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def regfs(server: FaultServer, cache: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Regfs:
    """Run a verb, and return what it prints on stdout."""

    def run(verb: str, *words: str) -> str:
        options = ["--default-registry", server.address, "--cache-dir", str(cache)]
        assert run_regfs([verb, *options, *words], {"PATH": os.environ["PATH"]}) == 0
        return os.fsdecode(capfdbinary.readouterr().out)

    return run


def test_ls_shows_the_root_of_an_image_a_directory_or_one_file(regfs: Regfs) -> None:
    assert regfs("ls", NAME) == "bin\netc\ntmp\n"
    assert regfs("ls", f"{NAME}:/etc/") == "link\nos-release\n"
    assert regfs("ls", f"{NAME}:/etc/link") == "/etc/link\n"
    assert regfs("ls", f"{NAME}:/tmp", f"{NAME}:/bin") == f"{NAME}:/tmp:\n{NAME}:/bin:\nsu\nsudo\n"


def test_ls_in_long_form_shows_what_stat_does(regfs: Regfs) -> None:
    link, os_release = regfs("ls", "-l", f"{NAME}:/etc").splitlines()
    assert link.endswith("link -> os-release")
    assert os_release.split() == ["-rw-r--r--", "1", "0", "0", "8", "1970-01-02", "00:00", "os-release"]


def test_ls_as_json_is_one_object_for_each_argument(regfs: Regfs) -> None:
    listed = json.loads(regfs("ls", "--json", f"{NAME}:/etc"))
    assert (listed["schema"], listed["is_directory"]) == (1, True)
    assert listed["entries"][1] == {
        "path": "/etc/os-release", "type": "file", "mode": 0o644, "nlink": 1, "uid": 0, "gid": 0, "size": 8,
        "mtime": 86400.0, "target": None,
    }  # fmt: skip


def test_cat_prints_the_bytes_of_files(regfs: Regfs) -> None:
    assert os.fsencode(regfs("cat", f"{NAME}:/etc/link", f"{NAME}:/bin/su")) == b"ID=demo\n\x7fELF\xff"


def test_find_takes_the_tests_that_people_know(regfs: Regfs) -> None:
    assert regfs("find", NAME).splitlines() == [
        "/", "/bin", "/etc", "/tmp", "/bin/su", "/bin/sudo", "/etc/link", "/etc/os-release",
    ]  # fmt: skip
    assert regfs("find", NAME, "-perm", "-4000").splitlines() == ["/bin/su", "/bin/sudo"]
    assert regfs("find", NAME, "-perm", "/6001", "-type", "d").splitlines() == ["/", "/bin", "/etc", "/tmp"]
    assert regfs("find", f"{NAME}:/etc", "-name", "*k").splitlines() == ["/etc/link"]
    assert regfs("find", NAME, "--path", "/*/su*", "--type", "f,l").splitlines() == ["/bin/su", "/bin/sudo"]
    assert [json.loads(line)["type"] for line in regfs("find", "--json", f"{NAME}:/etc").splitlines()] == [
        "directory", "symlink", "file",
    ]  # fmt: skip


def test_cp_copies_files_and_whole_directories(regfs: Regfs, tmp_path: Path) -> None:
    regfs("cp", f"{NAME}:/etc/link", f"{NAME}:/bin", str(tmp_path))
    assert (tmp_path / "link").read_bytes() == b"ID=demo\n"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "bin/su").samefile(tmp_path / "bin/sudo")
    if os.geteuid() == 0:
        assert stat.S_IMODE((tmp_path / "bin/su").stat().st_mode) == 0o4755
    regfs("cp", f"{NAME}:/bin/su", str(tmp_path / "link"))
    assert (tmp_path / "link").read_bytes() == b"\x7fELF\xff", "a file takes the place of a file"
    assert sorted(os.listdir(tmp_path)) == ["bin", "link"]


def test_cp_onto_a_link_writes_where_it_leads(regfs: Regfs, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "name").symlink_to("other/file")
    for path, content in (("/etc/link", b"ID=demo\n"), ("/bin/su", b"\x7fELF\xff")):
        regfs("cp", f"{NAME}:{path}", str(tmp_path / "name"))
        assert (tmp_path / "name").is_symlink()
        assert (tmp_path / "other/file").read_bytes() == content


def test_cp_onto_a_device_or_pipe_leaves_it_there(regfs: Regfs, tmp_path: Path) -> None:
    """`regfs cp IMAGE:/FILE /dev/null`, by root, once made a file of /dev/null, and of the link /dev/stdout."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "stdout").symlink_to("pipe")
    for name in ("pipe", "stdout"):
        with pytest.raises(InvalidOption, match=f"{name} is neither a file nor a directory; regfs cat"):
            regfs("cp", f"{NAME}:/bin/su", str(tmp_path / name))
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["pipe", "stdout"]


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ([f"{NAME}:/none", "{to}/x"], NotFound, "/none is not in"),
        ([f"{NAME}:/bin", "{to}/taken"], InvalidOption, "is there already"),
        ([f"{NAME}:/bin/su", "{to}/no/such"], InvalidOption, "is not a directory"),
        ([f"{NAME}:/bin/su", f"{NAME}:/etc", "{to}/x"], InvalidOption, "is not a directory, and several"),
        ([NAME, "{to}/x"], InvalidOption, "regfs unpack demo/app:1 DIR"),
    ],
)
def test_cp_that_fails_says_why_and_leaves_nothing(
    regfs: Regfs, tmp_path: Path, words: list[str], kind: type[RegfsError], said: str
) -> None:
    (tmp_path / "taken/bin").mkdir(parents=True)
    with pytest.raises(kind, match=said):
        regfs("cp", *[word.format(to=tmp_path) for word in words])
    assert os.listdir(tmp_path) == ["taken"]
    assert os.listdir(tmp_path / "taken") == ["bin"]


def test_wrong_paths_and_tests_are_named(regfs: Regfs) -> None:
    with pytest.raises(IsADirectory, match="/etc is a directory"):
        regfs("cat", f"{NAME}:/etc")
    with pytest.raises(IsADirectory, match=f"^{NAME} is an image: .*regfs ls {NAME}"):
        regfs("cat", NAME)
    with pytest.raises(InvalidOption, match="-type x"):
        regfs("find", NAME, "-type", "x")
    with pytest.raises(InvalidOption, match=r"-perm rwx: .*octal"):
        regfs("find", NAME, "-perm", "rwx")


def test_a_path_that_does_not_exist_is_told_whole(regfs: Regfs) -> None:
    """`regfs ls IMAGE:/etc/none/x` once said just "none: no such entry"."""
    for verb in ("ls", "cat"):
        with pytest.raises(NotFound, match=r"^/etc/none/x: no such file or directory$"):
            regfs(verb, f"{NAME}:/etc/none/x")


@pytest.mark.parametrize("verb", ["cat", "ls", "find", "cp"])
def test_a_file_with_a_slash_at_its_end_is_no_directory(regfs: Regfs, tmp_path: Path, verb: str) -> None:
    """`regfs cat IMAGE:/etc/os-release/` printed the file."""
    for path in ("/etc/os-release/", "/etc/link/"):
        with pytest.raises(NotADirectory, match=f"{path[:-1]} is not a directory"):
            regfs(verb, f"{NAME}:{path}", *([str(tmp_path / "x")] if verb == "cp" else []))
    assert os.listdir(tmp_path) == []


def test_a_name_that_only_docker_hub_completes_is_told_in_full(regfs: Regfs, server: FaultServer) -> None:
    """`debian` of another registry than Docker Hub was just not found, though `library/debian` was there."""
    with pytest.raises(NotFound, match=f"; there is {server.address}/library/official:1$"):
        regfs("inspect", "official:1")
    with pytest.raises(NotFound, match=r"MANIFEST_UNKNOWN|not found") as unknown:
        regfs("inspect", "official:2")
    assert "there is" not in str(unknown.value)


def test_a_tag_after_a_slash_is_told_with_a_colon(regfs: Regfs, server: FaultServer) -> None:
    """`regfs ls library/official/1`, as a mount has it, was just not found."""
    with pytest.raises(NotFound, match=f"; there is {server.address}/library/official:1$"):
        regfs("ls", "library/official/1")
    with pytest.raises(NotFound) as unknown:
        regfs("ls", "library/official/2")
    assert "there is" not in str(unknown.value)


def test_inspect_shows_an_image_on_one_screen_and_fetches_no_layer(regfs: Regfs, server: FaultServer) -> None:
    before = len(server.seen)
    shown = regfs("inspect", NAME)
    assert f"platform    linux/{host_architecture()}" in shown
    assert "command     /bin/su" in shown
    assert "layer 0" in shown
    found = json.loads(regfs("inspect", "--json", NAME))
    assert (found["schema"], found["config"]) == (1, {"Cmd": ["/bin/su"]})
    asked = {seen.path.rpartition("/")[2] for seen in server.seen[before:] if "/blobs/" in seen.path}
    assert not asked & {blob["digest"] for blob in found["blobs"]}
    assert [each["artifact_type"] for each in found["referrers"]] == [BUNDLE] * 2
    assert f"referrers   {found['referrers'][0]['digest'][:19]}  {BUNDLE}\n" in shown
    (signature,) = [each for referrer in found["referrers"] for each in referrer["signatures"]]
    assert signature == {
        "signers": [f"{SIGNER} (issuer {ISSUER})"],
        "times": [SIGNED],
        "verified": "no: there is no policy that names signers",
    }
    assert f"signed by {SIGNER} (issuer {ISSUER}), {SIGNED}\n" in shown
    assert "verified: no: there is no policy" in shown


def test_no_text_of_a_stranger_makes_a_line_of_inspect_that_says_verified(regfs: Regfs, server: FaultServer) -> None:
    application = server.application
    assert isinstance(application, MemoryRegistry)
    image = image_of(layer(file("a\nb")), run={"User": "\x1b[2J\nverified: by root", "Labels": {"a\nb": "\x9b"}})
    for content in image.blobs().values():
        application.add_blob("demo/evil", content)
    application.add_manifest("demo/evil", image.manifest, tag="1", media_type=image.media_type)
    evil = "\x1b[31mevil\nverified: by a key"
    refer(application, "demo/evil", image.digest, artifact_of(blob(b"x", "text/plain"), kind="a/b"), kind=evil)
    shown = regfs("inspect", "demo/evil:1")
    assert "user        \\033[2J\\012verified: by root\n" in shown
    assert "  \\033[31mevil\\012verified: by a key\n" in shown
    assert not [line for line in shown.splitlines() if line.strip().startswith("verified")]
    assert "\x1b" not in shown
    assert regfs("du", "demo/evil:1").rstrip().splitlines()[-1].endswith("/")
    assert "a\nb" in regfs("find", "demo/evil:1")
    del application.repositories["demo/evil"]


def test_names_do_not_control_the_terminal_on_which_they_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = os.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, terminal)
        tell("/etc/\x1b]0;pwn\x07\u202ef\n/é\t1")
        warn("no \x1b[2J in the image")
        printed = b""
        while not printed.endswith(b"image\r\n"):  # a terminal may give the end of a line by itself
            printed += os.read(leader, 4096)
    os.close(leader)
    assert printed.decode().splitlines() == ["/etc/?]0;pwn??f", "/é\t1", "regfs: no ?[2J in the image"]


def test_inspect_shows_an_image_whose_registry_does_not_tell_what_refers_to_it(
    regfs: Regfs, server: FaultServer, tmp_path: Path
) -> None:
    server.on("GET", "/referrers/", reply(404, b'{"errors":[{"code":"NAME_UNKNOWN"}]}'), times=1)
    found = json.loads(regfs("inspect", "--json", "--cache-dir", str(tmp_path), NAME))
    assert (found["config"], found["referrers"]) == ({"Cmd": ["/bin/su"]}, None)
    assert "cannot be listed" in found["referrers_failure"]


def test_tags_and_repositories_are_listed(regfs: Regfs, server: FaultServer) -> None:
    assert regfs("tags", "demo/app") == "1\n"
    assert json.loads(regfs("tags", "--json", "demo/app")) == {"schema": 1, "repository": "demo/app", "tags": ["1"]}
    assert regfs("repos") == regfs("repos", server.address) == "demo/app\ndemo/deep\ndemo/model\nlibrary/official\n"


def test_a_tag_that_was_just_pushed_is_listed_when_it_is_asked_for_now(regfs: Regfs, server: FaultServer) -> None:
    """The list is up to --tag-ttl old, and nothing told how to have a new one."""
    application = server.application
    assert isinstance(application, MemoryRegistry)
    assert regfs("tags", "demo/app") == "1\n"
    tags = application.repositories["demo/app"].tags
    tags["pushed"] = tags["1"]
    assert regfs("tags", "demo/app") == "1\n"
    assert regfs("tags", "--tag-ttl", "0", "demo/app") == "1\npushed\n"
    del tags["pushed"]
    assert regfs("tags", "--tag-ttl", "0", "demo/app") == "1\n"


def test_get_writes_an_artifact_as_its_own_tool_would(regfs: Regfs, tmp_path: Path) -> None:
    to = tmp_path / "new"
    assert regfs("get", "demo/model:1", str(to)).splitlines() == [
        str(to / name) for name in ("docs", "model.bin", "site")
    ]
    assert (to / "model.bin").read_bytes() == b"weights"
    assert (to / "docs/README.md").read_bytes() == b"# read me"
    assert os.access(to / "site/run", os.X_OK)
    assert os.readlink(to / "site/link") == "run"
    assert sorted(os.listdir(to)) == ["docs", "model.bin", "site"]
    assert regfs("ls", "demo/model:1").splitlines() == ["docs", "model.bin", "site"]
    assert regfs("cat", "demo/model:1:/model.bin") == "weights"
    regfs("get", "demo/model:1:/docs/README.md", str(tmp_path))
    assert (tmp_path / "README.md").read_bytes() == b"# read me"


def test_verbs_of_images_name_get_for_an_artifact(regfs: Regfs, tmp_path: Path) -> None:
    """They said that a layer cannot be shown as files, and that blobs/ has its bytes."""
    for verb, *words in (["unpack", str(tmp_path / "out")], ["du"]):
        with pytest.raises(Unsupported, match=r"application/vnd\.example', not an image; regfs get ARTIFACT \[DIR\]"):
            regfs(verb, "demo/model:1", *words)
    assert not (tmp_path / "out").exists()


def test_cp_copies_files_of_artifacts_too(regfs: Regfs, tmp_path: Path) -> None:
    """It said that an artifact has no root file system."""
    regfs("cp", "demo/model:1:/model.bin", "demo/model:1:/site", str(tmp_path))
    regfs("cp", "demo/model:1:/site/link", str(tmp_path / "followed"))
    assert (tmp_path / "model.bin").read_bytes() == b"weights"
    assert os.readlink(tmp_path / "site/link") == "run"
    assert ((tmp_path / "followed").read_bytes(), (tmp_path / "followed").is_symlink()) == (b"#!", False)
    with pytest.raises(NotFound, match="/none is not in"):
        regfs("cp", "demo/model:1:/none", str(tmp_path))
    with pytest.raises(InvalidOption, match="is there already"):
        regfs("cp", "demo/model:1:/site", str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["followed", "model.bin", "site"]


@pytest.fixture
def python_nests_few_calls() -> Iterator[None]:
    """Python's limit of nested calls is below DEPTH."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(DEPTH - 50)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("python_nests_few_calls")
def test_get_writes_directories_nested_deeper_than_python_nests_calls(regfs: Regfs, tmp_path: Path) -> None:
    (written,) = regfs("get", "demo/deep:1", str(tmp_path)).splitlines()
    assert os.path.isfile(f"{written}/{'d/' * DEPTH}end")


@pytest.mark.usefixtures("python_nests_few_calls")
def test_directories_nested_too_deeply_for_a_path_leave_nothing_behind(regfs: Regfs, tmp_path: Path) -> None:
    """The removal of what was half-written nested calls: it failed in its turn, and a directory `.regfs-…` stayed."""
    far = tmp_path.joinpath(*["x" * 250] * 13)
    far.mkdir(parents=True)
    with pytest.raises(CacheFailure, match="File name too long"):
        regfs("get", "demo/deep:1:/deep", str(far))
    assert os.listdir(far) == []


def test_get_overwrites_nothing_and_says_what_is_for_images(regfs: Regfs, tmp_path: Path) -> None:
    (tmp_path / "site").touch()
    with pytest.raises(InvalidOption, match="site is there already"):
        regfs("get", "demo/model:1", str(tmp_path))
    assert os.listdir(tmp_path) == ["site"]
    with pytest.raises(InvalidOption, match="is an image; regfs unpack"):
        regfs("get", NAME, str(tmp_path))
    with pytest.raises(NotFound, match="/none is not in"):
        regfs("get", "demo/model:1:/none", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "image", "path"),
    [
        ("debian:12:/etc/passwd", "docker.io/library/debian:12", "etc/passwd"),
        ("debian:/etc", "docker.io/library/debian:latest", "etc"),
        ("debian:12", "docker.io/library/debian:12", ""),
        ("localhost:5000/app:1:/a:/b", "localhost:5000/app:1", "a:/b"),
        ("docker://debian:12:/etc", "docker.io/library/debian:12", "etc"),
        ("docker://debian:12", "docker.io/library/debian:12", ""),
    ],
)
def test_the_first_colon_with_a_slash_parts_image_and_path(text: str, image: str, path: str) -> None:
    found = read_image_path(text, "docker.io", ())
    assert (str(found.reference), found.path) == (image, path)


@pytest.mark.parametrize("path", ["etc/os-release", "etc/X11"])
def test_a_path_after_an_image_with_one_slash_is_told_how_to_be_written(path: str) -> None:
    """`regfs cat debian:12/etc/os-release` said that the name debian cannot be resolved, and no more."""
    with pytest.raises(RegfsError, match=f"; a path in the image none-such:12 is written none-such:12:/{path}"):
        run_regfs(["cat", f"none-such:12/{path}"], {"PATH": os.environ["PATH"], "REGFS_CONFIG": ""})


@pytest.fixture(scope="module")
def layered() -> Iterator[FaultServer]:
    """demo/layered:1: of a, the base has a version that is replaced; secret is deleted; bin is a link to usr/bin."""
    application = MemoryRegistry()
    image = image_of(
        layer(file("usr/bin/a", b"old"), file("root/secret", b"12345"), symlink("bin", "usr/bin"), file("kept", b"k")),
        layer(file("usr/bin/a", b"new!"), whiteout("root/secret")),
        architecture=host_architecture(),
    )
    for content in image.blobs().values():
        application.add_blob("demo/layered", content)
    application.add_manifest("demo/layered", image.manifest, tag="1", media_type=image.media_type)
    with FaultServer(application) as served:
        yield served


@pytest.fixture
def of_layered(layered: FaultServer, regfs: Regfs) -> Regfs:
    return lambda verb, *words: regfs(verb, "--json", f"{layered.address}/demo/layered:1", *words)


def test_which_tells_the_layer_of_a_path_and_what_is_hidden_below_it(of_layered: Regfs) -> None:
    found = json.loads(of_layered("which", "/bin/a"))
    assert found["path"] == "/usr/bin/a", "links on the way are followed"
    states = [(each["layer"], each["size"], each["state"], each["by"], each["command"]) for each in found["versions"]]
    assert states == [(1, 4, "shown", None, "layer 1"), (0, 3, "replaced", 1, "layer 0")]
    deleted = json.loads(of_layered("which", "root/secret"))["versions"]
    assert [(each["layer"], each["state"], each["by"]) for each in deleted] == [(0, "deleted", 1)]
    directories = json.loads(of_layered("which", "/usr/"))["versions"]
    assert [(each["layer"], each["state"]) for each in directories] == [(1, "shown"), (0, "shown")]
    assert json.loads(of_layered("which", "/bin"))["path"] == "/bin", "what is asked about is the link"
    with pytest.raises(NotFound, match="/usr/none is in no layer of"):
        of_layered("which", "/usr/none")


def test_which_takes_the_path_behind_the_image_as_ls_and_cat_do(layered: FaultServer, regfs: Regfs) -> None:
    """`regfs which IMAGE:/PATH` asked for PATH, which was there."""
    name = f"{layered.address}/demo/layered:1"
    found = json.loads(regfs("which", "--json", f"{name}:/bin/a"))
    assert found == json.loads(regfs("which", "--json", name, "/bin/a"))
    with pytest.raises(InvalidOption, match=f"required: PATH, or {name}:/PATH"):
        regfs("which", name)


def test_du_tells_the_bytes_of_layers_and_of_directories(of_layered: Regfs, regfs: Regfs) -> None:
    sizes = json.loads(of_layered("du", "--depth", "2"))
    assert [(each["size"], each["entries"], each["wasted"]) for each in sizes["layers"]] == [(9, 7, 8), (4, 5, 0)]
    assert [(each["path"], each["size"]) for each in sizes["directories"]] == [
        ("/", 5), ("/usr", 4), ("/usr/bin", 4), ("/root", 0),
    ]  # fmt: skip
    shown = regfs("du", NAME, "--most", "1").splitlines()
    assert shown[0].split() == ["LAYER", "DIGEST", "COMPRESSED", "SIZE", "ENTRIES", "WASTED"]
    assert shown[-1].strip() == "2 smaller ones; --most shows more, --json all"
    with pytest.raises(InvalidOption, match="--depth deep: a number is needed"):
        of_layered("du", "--depth", "deep")


def test_du_of_a_path_tells_what_is_at_and_below_it(of_layered: Regfs, layered: FaultServer, regfs: Regfs) -> None:
    """`regfs du IMAGE:/PATH` was no reference to an image."""
    name = f"{layered.address}/demo/layered:1"
    sizes = json.loads(regfs("du", "--json", f"{name}:/bin"))
    assert (sizes["path"], sizes["layers"]) == ("/usr/bin", []), "links are followed"
    assert [(each["path"], each["size"], each["entries"]) for each in sizes["directories"]] == [("/usr/bin", 4, 1)]
    below = [each.split()[-1] for each in regfs("du", f"{name}:/usr").splitlines()]
    assert below == ["/usr", "/usr/bin"]
    one = json.loads(regfs("du", "--json", f"{name}:/usr/bin/a"))["directories"]
    assert one == [{"path": "/usr/bin/a", "size": 4, "entries": 1}]
    assert regfs("du", "--map", f"{name}:/usr").startswith("┌ bin ")
    with pytest.raises(NotFound, match="/none is not in"):
        regfs("du", f"{name}:/none")


def test_du_draws_directories_as_areas(regfs: Regfs, layered: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    drawn = regfs("du", "--map", f"{layered.address}/demo/layered:1").split("\n\n")[1].splitlines()
    assert drawn[0].startswith("┌ usr ")
    assert drawn[1].startswith("│┌ bin ")


def test_history_tells_the_steps(of_layered: Regfs, regfs: Regfs) -> None:
    steps = json.loads(of_layered("history"))["steps"]
    assert [step["command"] for step in steps] == ["layer 0", "layer 1"]
    assert regfs("history", NAME).splitlines()[1].split()[:2] == ["1", "000"]


def test_the_json_of_inspect_has_the_referrers_as_the_manual_page_tells_them(regfs: Regfs) -> None:
    printed = json.loads(regfs("inspect", NAME, "--json"))
    assert printed.pop("schema") == SCHEMA
    without_signature = ("inspect", "referrers", "signatures")
    check(printed, shape_of(FIELDS["inspect"]), ("inspect",), may_be_empty=[without_signature])
    assert any(each["signatures"] for each in printed["referrers"])
