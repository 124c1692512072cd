"""`regfs prefetch` of one and of many images, as scripts and continuous integration run it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs.cli.exit_codes import exit_code
from regfs.errors import RegfsError
from regfs.verbs.prefetch import Wanted, wanted
from regfs.verbs.progress import Step, showing
from tests.support.images import directory, file, image_of, layer
from tests.support.lazy_layers import estargz
from tests.support.mounted import run_regfs
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry

Prefetch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def names(docker_registry: DockerRegistry) -> list[str]:
    """Return the names of two images, each with its digest."""
    push = Pusher(docker_registry.url)
    images = [push.image("prefetch/many", str(number), image_of(layer(file(f"file{number}")))) for number in range(2)]
    return [f"{docker_registry.address}/prefetch/many:{n}@{image.digest}" for n, image in enumerate(images)]


@pytest.fixture
def prefetch(tmp_path: Path) -> Prefetch:
    """Run the verb on a cache of the test's own."""

    def run(*words: str, stdin: str = "", cache: Path = tmp_path / "cache") -> subprocess.CompletedProcess[str]:
        return run_regfs("prefetch", "--cache-dir", cache, *words, home=tmp_path, stdin=stdin)

    return run


def without_digest(name: str) -> str:
    return name.partition("@")[0]


def test_several_images_come_in_one_call(prefetch: Prefetch, names: list[str]) -> None:
    done = prefetch(*map(without_digest, names))
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, names, "")
    again = prefetch("--offline", *names)
    assert again.returncode == 0, again.stderr


def test_one_that_fails_does_not_keep_the_others_from_coming(prefetch: Prefetch, names: list[str]) -> None:
    missing = without_digest(names[0]).rpartition(":")[0] + ":none"
    done = prefetch("No/Name", missing, without_digest(names[0]))
    assert (done.returncode, done.stdout) == (3, f"{names[0]}\n")  # 2 for a wrong name, 3 for a missing one
    wrong, absent = done.stderr.splitlines()
    assert wrong.startswith("regfs: No/Name: ")
    assert absent.startswith(f"regfs: {missing}: ")


def test_images_are_read_from_a_list(prefetch: Prefetch, names: list[str], tmp_path: Path) -> None:
    text = f"# for the weekend\n\n  {without_digest(names[0])}   # the first\n{without_digest(names[1])}\n"
    (tmp_path / "list").write_text(text)
    assert prefetch("--file", "list").stdout.splitlines() == names
    assert prefetch("--file", "-", stdin=text).stdout.splitlines() == names
    assert prefetch("--file", "list", names[1]).stdout.splitlines() == [names[1], *names]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no image is named"),
        (("--file", "none"), "--file none: No such file"),
        (("--file", "-"), "no image is named"),
    ],
)
def test_nothing_to_prefetch_is_wrong_usage(prefetch: Prefetch, words: tuple[str, ...], said: str) -> None:
    done = prefetch(*words)
    assert (done.returncode, said in done.stderr) == (2, True)


def test_programs_get_a_line_for_each_image(prefetch: Prefetch, names: list[str]) -> None:
    missing = without_digest(names[0]).rpartition(":")[0] + ":none"
    done = prefetch("--json", without_digest(names[0]), missing)
    assert (done.returncode, done.stderr) == (3, "")
    cached, failed = map(json.loads, done.stdout.splitlines())
    assert cached.pop("received_bytes") > 0
    assert cached == {
        "schema": 1,
        "image": without_digest(names[0]),
        "name": names[0],
        "state": "cached",
        "exit_code": 0,
        "error": None,
        "layers": 1,
    }
    assert "prefetch/many" in failed.pop("error")
    assert failed == {
        "schema": 1, "image": missing, "name": None, "state": "failed", "exit_code": 3, "layers": 0,
        "received_bytes": 0,
    }  # fmt: skip


def test_a_list_that_is_no_text_is_named(prefetch: Prefetch, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xff\xfe")
    done = prefetch("--file", "list")
    assert (done.returncode, done.stderr) == (2, "regfs: list is not a text file\n")


def test_an_image_that_is_missing_is_named_once(prefetch: Prefetch, names: list[str]) -> None:
    missing = without_digest(names[0]).rpartition(":")[0] + ":none"
    done = prefetch(missing, missing)
    assert done.returncode == 3
    for line in done.stderr.splitlines():
        assert line.startswith(f"regfs: {missing}: not found (404 MANIFEST_UNKNOWN")
        assert line.count(missing.partition("/")[0]) == 1


def test_what_was_not_kept_was_not_prefetched(prefetch: Prefetch, names: list[str], tmp_path: Path) -> None:
    """It once ended with 0, having fetched everything into a directory that went at the end."""
    (tmp_path / "file").touch()
    done = prefetch(names[0], cache=tmp_path / "file/cache")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be used (Not a directory)" in done.stderr
    assert "choose another with --cache-dir" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory that even root cannot fill")
def test_documents_that_were_not_kept_are_told(prefetch: Prefetch, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/blobs").symlink_to(tmp_path / "nowhere")  # the cache can be written, blobs cannot
    done = prefetch(names[0])
    assert (done.returncode, done.stdout) == (1, "")
    assert "blobs/sha256" in done.stderr


def test_an_artifact_is_no_image_and_has_a_code_of_its_own(prefetch: Prefetch, docker_registry: DockerRegistry) -> None:
    push = Pusher(docker_registry.url)
    image = push.image("prefetch/chart", "image", image_of(layer(file("Chart.yaml"))))
    chart = json.loads(image.manifest)
    chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    push.manifest("prefetch/chart", "1", json.dumps(chart).encode(), chart["mediaType"])
    done = prefetch(f"{docker_registry.address}/prefetch/chart:1")
    assert (done.returncode, "not an image" in done.stderr) == (7, True)


def test_a_log_without_a_terminal_shows_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regfs.verbs.progress._FIRST_LINE_S", 0.01)
    monkeypatch.setattr("regfs.verbs.progress._LINE_EVERY_S", 0.01)
    said: list[str] = []
    with showing(lambda: [Step("layer abc", 1 << 20, 4 << 20)], say=said.append, environment={"CI": "true"}):
        while len(said) < 3:
            pass
    assert set(said) == {"layer abc: 1.0 MiB of 4.0 MiB"}


def all_errors(error: type[RegfsError] = RegfsError) -> list[type[RegfsError]]:
    return [error, *(each for child in error.__subclasses__() for each in all_errors(child))]


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_every_error_has_an_exit_code_that_the_readme_explains(error: type[RegfsError]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert f"{exit_code(error('x'))} " in readme.partition("The verbs end with")[2].partition(".")[0]


def test_paths_in_an_image_bring_these_alone(prefetch: Prefetch, docker_registry: DockerRegistry) -> None:
    entries = [directory("d"), file("d/a", os.urandom(3000)), file("big", os.urandom(3_000_000))]
    built = Pusher(docker_registry.url).image("prefetch/lazy", "1", image_of(estargz(*entries)))
    name = f"{docker_registry.address}/prefetch/lazy:1"
    done = prefetch("--json", name, "/d", "/d/a")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["received_bytes"] < 300_000
    assert (prefetch("--offline", name, "/d").returncode, prefetch("--offline", name, "/big").returncode) == (0, 5)
    missing = prefetch(name, "/d", "/none")
    assert (missing.returncode, "/none is not in" in missing.stderr) == (3, True)
    assert prefetch(name).stdout == f"{name}@{built.digest}\n"
    assert prefetch("--offline", name, "/big").returncode == 0


def test_a_path_belongs_to_the_image_before_it() -> None:
    assert wanted(["a", "/x", "/y", "b", "c", "/z"]) == [Wanted("a", ("/x", "/y")), Wanted("b"), Wanted("c", ("/z",))]
    assert wanted(["/x", "/y"]) == [Wanted("/x", ("/y",))]


def test_an_image_larger_than_the_cache_comes_in_part_and_that_is_said(
    prefetch: Prefetch, docker_registry: DockerRegistry
) -> None:
    """It was "fetched" without a word, and most of it was gone again."""
    content = os.urandom(3 << 20)
    image = image_of(estargz(*[file(f"file{number}", content[number:]) for number in range(4)]))
    Pusher(docker_registry.url).image("prefetch/large", "1", image)
    name = f"{docker_registry.address}/prefetch/large:1"
    done = prefetch("--cache-size", "6M", name)
    assert done.returncode == 0
    assert "the cache keeps a part of it: its files have 12.0 MiB, and --cache-size is 6.0 MiB" in done.stderr
    done = prefetch("--cache-size", "60M", name)
    assert (done.returncode, done.stderr) == (0, "")
