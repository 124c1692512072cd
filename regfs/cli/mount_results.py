"""Prints how an action on several mounts went for each of them. Used by the verbs refresh and restart. Any thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from regfs.cli.exit_codes import exit_code
from regfs.cli.json_output import tell_json
from regfs.cli.terminal import tell, warn
from regfs.errors import MountFailure, RegfsError
from regfs.mount.mountpoint import on_one_line


@dataclass(frozen=True, slots=True)
class MountResult:
    """The result for one mount: *success* says it in words where *failure* is None; *fields* are for --json."""

    mountpoint: str
    failure: RegfsError | None
    success: str
    fields: Mapping[str, object] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return 0 if self.failure is None else exit_code(self.failure)


def tell_mount_results(results: Sequence[MountResult], format_name: str) -> int:
    """Print *results* as text or JSON, and failures to standard error; return the highest exit code.

    Raises MountFailure where there are none, and as terminal.tell() does.
    """
    if not results:
        raise MountFailure("no regfs of yours is mounted")
    for each in results:
        if each.failure is not None:
            warn(str(each.failure))
        elif format_name != "json":
            tell(f"{on_one_line(each.mountpoint)}: {each.success}")
    if format_name == "json":
        tell_json({"mounts": [_fields(each) for each in results]})
    return max(each.exit_code for each in results)


def _fields(result: MountResult) -> dict[str, object]:
    error = None if result.failure is None else str(result.failure)
    return {"mountpoint": result.mountpoint, **result.fields, "exit_code": result.exit_code, "error": error}
