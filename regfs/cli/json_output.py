"""What verbs print with --json: one line of JSON, its fields, and the verbs that have none.

FIELDS is the documentation, from which the manual page is made: `name`; `name?` may be null; `name [fields]` is a list
of objects and `name (fields)` an object; a name without brackets may also be a text, number, list of texts or free
object. tests/test_json_output.py runs every verb and compares. Used by the verbs. Any thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from regfs.cli.terminal import tell

SCHEMA = 1
_ENTRY = "path, type, mode, nlink, uid, gid, size, mtime, target?"
_SIDE = "type, mode, uid, gid, size"
FIELDS: dict[str, str] = {
    "ls": f"path, is_directory, entries [{_ENTRY}]",
    "cp": "copies [source, path], notes",
    "find": _ENTRY,
    "get": "name, written",
    "inspect": "name, digest, media_type, platforms, manifest_digest, platform, created, config, blobs [digest, "
    "media_type, size, command], annotations, referrers? [digest, artifact_type, subject, signatures [signers, times, "
    "verified]], referrers_failure",
    "history": "steps [created, command, has_layer]",
    "which": "path, versions [layer, digest, command, mode, size, state, by?]",
    "du": "path, layers [layer, digest, compressed, size, entries, wasted], directories [path, size, entries]",
    "diff": "a, b, is_different, files [path, kind, fields, image, layer?, digest?, command, "
    f"a? ({_SIDE}), b? ({_SIDE})], config [field, key?, a?, b?], stat (added (paths, bytes), removed (paths, bytes), "
    "changed (paths, bytes), layers [image, layer?, command, paths])",
    "tags": "repository, tags",
    "repos": "registry, repositories",
    "login": "registry, stored_in, notes",
    "logout": "registry, is_removed",
    "umount": "mountpoint, source?, note?",
    "status": "mountpoint, source, state, reason, version, pid?, uptime_s?, driver?, platform?, log?, restarts?, "
    "crashes?, cache (path?, used_bytes?, limit_bytes?, free_bytes?, min_free_bytes?, max_age_s?), counters, fetching "
    "[origin, digest, received, size]",
    "refresh": "mounts [mountpoint, exit_code, error?]",
    "restart": "mounts [mountpoint, pid, exit_code, error?]",
    "prefetch": "image, name?, state, exit_code, error?, layers, received_bytes",
    "path": "path",
    "mount": "name, mountpoint, driver",
    "unpack": "name, directory, is_complete, notes",
    "record": "image, exit_code, pushed?",
    "index": "name, notes",
    "doctor": "findings [name, is_well, detail, is_needed]",
    "config": "files [path, exists], options [name, value, source]",
    "pin": "name",
    "unpin": "names",
    "pins": "pins [name, digest]",
    "export": "names, size, notes",
    "import": "images [name, is_pinned], notes",
    "cache du": "path, exists, bytes, limit_bytes?, free_bytes?, min_free_bytes?, max_age_s?, images, kinds",
    "cache ls": "digest, names, artifact_type, platform, layers, layers_here, bytes, unique_bytes, used",
    "cache rm": "images, freed_bytes, other_names, parts_in_use, is_dry_run",
    "cache prune": "freed_bytes, left_bytes, is_over, evicted [path, bytes], is_dry_run",
    "cache verify": "damaged [path, reason], is_dropped",
    "setup": "files [path, kind, reason], notes",
    "version": "regfs, python, kernel, driver, has_libfuse2, has_isal",
}
WITHOUT_JSON: dict[str, str] = {
    "cat": "standard output has the bytes of the files",
    "run": "standard output belongs to the program",
    "shell": "standard output belongs to the program",
    "completion": "the script is for a shell",
    "complete": "the words are for a shell",
    "help": "the text is for people, or the page for man(1)",
}
"""The verbs that do not know --json, each with its reason."""
LISTS = frozenset({"status", "cache ls"})
"""What prints a list of such objects."""

_HEAD = """\
With `--json` a verb prints its result as one object in one line, the last one on standard output; progress and messages
go to standard error. `ls`, `pin`, `unpin` and `prefetch` print an object for each argument, `find` for each path;
`status` and `cache ls` print a list of objects. After a failure there is none, unless the fields below tell it; the
exit code is the same as without `--json`.

The field `schema` of each object is 1. Within a schema, fields may come and never go or change their meaning. Sizes are
bytes, times seconds since 1970, modes numbers as stat(2) has them; a byte of a name that is not UTF-8 is a lone
surrogate, as Python's surrogateescape has it. Below, `?` follows a field that may be null, `[ ]` has the fields of the
objects in a list, `( )` those of an object.
"""
_REMARKS = {
    "which": "the version that is shown comes first",
    "du": "with a PATH without layers",
    "diff": "with `--stat` without files",
    "config": "value is a text, or true or false",
    "export": "with `--output FILE` alone, for standard output has the archive otherwise",
    "record": "the line follows what the program prints",
    "mount": "the driver is erofs where the kernel serves the mount alone",
    "umount": "source is null where nothing was mounted, with `--quiet`",
    "path": "the image by its digest",
    "unpin": "the names that were pinned",
}


def tell_json(fields: Mapping[str, object]) -> None:
    """Print *fields* as an object in one line, with its schema first. Raises as terminal.tell() does."""
    tell(json.dumps(with_schema(fields)))


def tell_result(format_name: str, text: str, fields: Mapping[str, object]) -> None:
    """Print a result: as *fields* where *format_name*, the value of --format, is json, otherwise as *text*."""
    if format_name == "json":
        tell_json(fields)
    else:
        tell(text)


def tell_json_list(objects: Iterable[Mapping[str, object]]) -> None:
    """Print *objects* as a list in one line, each with its schema."""
    tell(json.dumps([with_schema(each) for each in objects]))


def with_schema(fields: Mapping[str, object]) -> dict[str, object]:
    """Return *fields* behind the field `schema`."""
    return {"schema": SCHEMA, **fields}


def json_notes() -> str:
    """Return the section of the manual page, as manual_notes.py writes prose."""
    lines = []
    for verb, fields in FIELDS.items():
        remark = f"; {_REMARKS[verb]}" if verb in _REMARKS else ""
        lines.append(f"- `{verb}`: {fields}{remark}\n")
    without = "; ".join(f"`{verb}`, since {reason}" for verb, reason in WITHOUT_JSON.items())
    return f"{_HEAD}\n{''.join(lines)}\nWithout `--json`: {without}.\n"
