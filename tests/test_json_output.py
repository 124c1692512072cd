"""--json: every verb knows it or says why not, and what each prints is what the manual page tells of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.cli.json_output import FIELDS, LISTS, SCHEMA, WITHOUT_JSON
from regfs.cli.manual_page import manual_page
from regfs.cli.verbs import VERBS, load_verb
from regfs.cli.verbs.cache import WORDS
from tests.conftest import MountRegfs
from tests.support import preloaded
from tests.support.artifacts import TITLE, artifact_of, blob
from tests.support.images import OCI, directory, file, image_of, layer, symlink, whiteout
from tests.support.json_shape import check, shape_of
from tests.support.mounted import Mounted, environment_for, run_regfs
from tests.support.push import Pusher
from tests.support.real_root import busybox
from tests.support.registry import DockerRegistry
from tests.support.restart_load import await_holder

Regfs = Callable[..., subprocess.CompletedProcess[str]]
APP, NEXT, MODEL = "json/app:1", "json/app:2", "json/model:1"

# How each verb is called; {app} and so on are in the fixture `words`, {mount} is a mount.
CALLS: dict[str, str] = {
    "ls": "{app}:/etc",
    "cp": "{app}:/etc/os-release {home}/copy",
    "find": "{app}",
    "get": "{model} {home}/got",
    "inspect": "{app}",
    "history": "{app}",
    "which": "{app}:/etc/os-release",
    "du": "{app}",
    "diff": "{app} {next}",
    "tags": "{registry}/json/app",
    "repos": "{registry}",
    "login": "-u me --password-stdin {registry}",
    "logout": "{registry}",
    "umount": "{mount}",
    "status": "{mount}",
    "refresh": "{mount}",
    "restart": "{mount}",
    "prefetch": "{app}",
    "path": "--mount {mount} {app}",
    "mount": "--fuse {app} {home}/image",
    "unpack": "{app} {home}/root",
    "record": "{app} -- /bin/cat /etc/os-release",
    "index": "--min-layer-size 0 --output {home}/layout {app}",
    "doctor": "",
    "config": "",
    "pin": "{app}",
    "unpin": "{app}",
    "pins": "",
    "export": "--output {home}/archive {app}",
    "import": "{home}/archive",
    "cache du": "",
    "cache ls": "",
    "cache rm": "{app}",
    "cache prune": "--all",
    "cache verify": "",
    "setup": "--root {home}/system --prefix /usr",
    "version": "",
}
# What has to be done before.
FIRST: dict[str, tuple[str, ...]] = {
    "cache ls": ("prefetch {app}",),
    "cache prune": ("prefetch {app}",),
    "cache rm": ("prefetch {app}",),
    "cache verify": ("prefetch {app}",),
    "import": ("export --output {home}/archive {app}",),
    "pins": ("pin {app}",),
    "unpin": ("pin {app}",),
}
WITHOUT_CACHE = {"login", "logout", "umount", "status", "refresh", "restart", "path", "config", "setup", "version"}
EXIT_CODES = {"diff": 1, "cache verify": 6}
# Lists that are empty here: nothing is being fetched; tests/test_reading_verbs.py has an image with referrers.
EMPTY = {("status", "fetching"), ("inspect", "referrers")}
BUSYBOX = busybox()


@pytest.fixture(scope="module")
def registry(docker_registry: DockerRegistry) -> DockerRegistry:
    push = Pusher(docker_registry.url)
    program = [file("bin/cat", BUSYBOX.read_bytes(), mode=0o755)] if BUSYBOX is not None else []
    base = layer(
        directory("etc"), file("etc/os-release", b"ID=demo\n"), symlink("etc/link", "os-release"), *program,
        file("gone", b"x"), directory("tmp"),
    )  # fmt: skip
    push.image("json/app", "1", image_of(base, layer(file("etc/os-release", b"ID=demo2\n")), command=["/bin/cat"]))
    changed = layer(file("etc/os-release", b"ID=other\n"), file("etc/new", b""), whiteout("gone"))
    push.image("json/app", "2", image_of(base, changed, command=["/bin/new"]))
    part = blob(b"weights", "application/octet-stream", {TITLE: "model.bin"})
    model = artifact_of(part, kind="application/vnd.example")
    push.blob("json/model", model.config)
    for each in model.blobs:
        push.blob("json/model", each.content)
    push.manifest("json/model", "1", model.manifest, f"{OCI}.manifest.v1+json")
    return docker_registry


@pytest.fixture
def words(registry: DockerRegistry, tmp_path: Path) -> dict[str, str]:
    at = registry.address
    return {
        "registry": at, "app": f"{at}/{APP}", "next": f"{at}/{NEXT}", "model": f"{at}/{MODEL}", "home": str(tmp_path),
    }  # fmt: skip


@pytest.fixture
def regfs(words: dict[str, str], tmp_path: Path) -> Regfs:
    def run(call: str, *options: str) -> subprocess.CompletedProcess[str]:
        verb, *more = call.format(**words).split()
        cache = [] if verb in WITHOUT_CACHE else ["--cache-dir", str(tmp_path / "cache")]
        (tmp_path / "regfs.toml").write_text('tag-ttl = "5m"\n')
        environment = environment_for(tmp_path, {"REGFS_CONFIG": str(tmp_path / "regfs.toml")})
        # `record` gives what follows IMAGE to the program
        return preloaded.run(
            [verb, *cache, *options, *more], environment=environment, directory=tmp_path, stdin="secret\n"
        )

    return run


def damage_a_blob(cache: Path) -> None:
    found = next(path for path in sorted(cache.glob("blobs/**/*")) if path.is_file())
    found.chmod(0o600)
    found.write_bytes(bytes(found.stat().st_size))


@pytest.fixture
def mount(mount_regfs: MountRegfs, registry: DockerRegistry) -> Mounted:
    made = mount_regfs("--default-registry", registry.address)
    await_holder(made.path)
    return made


@pytest.fixture
def unmounted(tmp_path: Path) -> Iterator[None]:
    """Unmount what `regfs mount` has mounted in the test."""
    yield
    if os.path.ismount(tmp_path / "image"):
        assert run_regfs("umount", str(tmp_path / "image"), home=tmp_path).returncode == 0


def test_every_verb_knows_json_or_has_a_reason_not_to() -> None:
    for name in VERBS:
        options = {text for action in load_verb(name).parser()._actions for text in action.option_strings}
        assert ({"--json", "--format"} <= options) == (name not in WITHOUT_JSON), name
        assert ("--json" in options) == ("--format" in options), name
    documented = {name for name in VERBS if name not in WITHOUT_JSON} - {"cache"}
    assert set(FIELDS) == documented | {f"cache {word}" for word in WORDS}


def test_the_manual_page_tells_the_fields_and_the_reasons() -> None:
    page = re.sub(r"\\f[BR]|\\&", "", manual_page()).replace("\\-", "-")
    for verb, fields in FIELDS.items():
        assert f"{verb}: {fields}" in page
    for verb, reason in WITHOUT_JSON.items():
        assert f"{verb}, since {reason}" in page


@pytest.mark.usefixtures("unmounted")
@pytest.mark.parametrize("verb", FIELDS)
def test_what_a_verb_prints_as_json_is_what_is_documented(
    verb: str, regfs: Regfs, words: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if verb == "record" and BUSYBOX is None:
        pytest.skip("needs a static busybox")
    call = CALLS[verb]
    if verb in ("mount", "record"):
        request.getfixturevalue("needs_fuse")
    if "{mount}" in call:
        words["mount"] = str(request.getfixturevalue("mount").path)
    (tmp_path / "image").mkdir()
    for step in FIRST.get(verb, ()):
        done = regfs(step)
        assert done.returncode == 0, done.stderr
    if verb == "cache verify":
        damage_a_blob(tmp_path / "cache")
    done = regfs(f"{verb} {call}", "--json")
    assert done.returncode == EXIT_CODES.get(verb, 0), done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines() if not line.startswith("ID=")]
    if verb in LISTS:
        (printed,) = printed
    assert printed
    for each in printed:
        assert each.pop("schema") == SCHEMA
        check(each, shape_of(FIELDS[verb]), (verb,), may_be_empty=EMPTY)


def test_export_to_stdout_and_json_exclude_each_other(regfs: Regfs) -> None:
    done = regfs("export {app}", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--json needs -o FILE" in done.stderr


def test_progress_and_notes_are_not_on_the_stdout_that_has_the_json(regfs: Regfs) -> None:
    """A program reads the last line; the parser of a whole file reads all of it."""
    for call in ("pin {app}", "cp {app}:/etc {home}/etc", "cache prune --all"):
        assert len(regfs(call, "--json").stdout.splitlines()) == 1


def test_a_failure_prints_no_json_unless_its_fields_tell_it(regfs: Regfs) -> None:
    for call in ("unpack {registry}/json/none:1 {home}/none", "pin {registry}/json/none:1", "ls {app}:/none"):
        done = regfs(call, "--json")
        assert (done.returncode, done.stdout) == (3, ""), call
        assert done.stderr.startswith("regfs: ")
    failed = regfs("prefetch {registry}/json/none:1", "--json")
    assert (failed.returncode, json.loads(failed.stdout)["exit_code"]) == (3, 3)


def test_a_cache_that_is_not_there_is_not_made_to_be_looked_after(regfs: Regfs, tmp_path: Path) -> None:
    for word in ("prune", "verify"):
        printed = json.loads(regfs(f"cache {word}", "--json").stdout)
        assert set(printed) == {"schema", *shape_of(FIELDS[f"cache {word}"])}
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel mounts images for root")
def test_the_mount_of_an_image_by_the_kernel_is_told_as_json(
    regfs: Regfs, words: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "image").mkdir()
    done = regfs("mount {app} {home}/image", "--json")
    if "the kernel cannot mount" in done.stderr:
        pytest.skip(done.stderr)
    assert json.loads(done.stdout)["driver"] == "erofs"
    gone = json.loads(regfs("umount {home}/image", "--json").stdout)
    assert (gone["mountpoint"], gone["source"].partition("@")[0]) == (str(tmp_path / "image"), words["app"])
