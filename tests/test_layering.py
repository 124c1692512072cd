"""Imports point down: a package knows those below it, and packages in one row do not know each other."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "regfs"

# The architecture, from the top: each row may import the rows below it, and nothing of its own row but itself.
ROWS: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"verbs"},
    {"daemon", "library"},
    {"app", "export"},
    {"mount"},
    {"tree"},
    {"images"},
    {"rootfs"},
    {"layers", "registry", "store"},
    {"telemetry"},
    {"model"},
    {"process"},
    {"errors"},
]
ONLY_IMPORTER = {
    "requests": {"registry/http/transport.py"},
    "cryptography": {
        f"images/judging/{name}.py"
        for name in (
            "keys",
            "containers_policy/certificates",
            "containers_policy/signers",
            "containers_policy/trusted_root",
            "notation/certificates",
            "notation/trust_store",
            "notation/timestamps",
            "notation/rules",
        )
    },
    "sigstore": {"images/judging/containers_policy/trusted_root.py", "images/judging/containers_policy/signers.py"},
    "rfc3161_client": {"images/judging/notation/timestamps.py"},
    "urllib3": {"registry/http/transport.py"},
    "fuse": {"mount/fusepy/libfuse.py"},
    "fusepy": {"mount/fusepy/libfuse.py"},
}

# Which modules use os.environ, and for what. Settings are read by the first alone.
ENVIRONMENT_USERS = {
    "cli/main.py": "the settings, and a PATH where there is none",
    "images/workers/own_process.py": "what a worker needs to start",
    "library/client.py": "credentials, proxies and the place of the cache, where the program gives none",
    "daemon/takeover/successor.py": "the settings of the mount that it takes over",
    "mount/kernel/mount.py": "what fusermount3 is started with",
    "daemon/process_settings.py": "fusepy is told the name of its library by it",
}


def modules() -> list[Path]:
    """Return every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def relative(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


@cache
def nodes(module: Path) -> list[ast.AST]:
    """Return all nodes of the syntax tree of *module*."""
    return list(ast.walk(ast.parse(module.read_text(), str(module))))


def imported_names(module: Path) -> set[str]:
    """Return the dotted names that *module* imports, wherever in it and for whatever purpose."""
    names: set[str] = set()
    for node in nodes(module):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(module)}:{node.lineno}: relative import; write the full name"
            base = node.module or ""
            names.update(f"{base}.{alias.name}" if base == "regfs" else base for alias in node.names)
    return names


def package_of(name: str) -> str:
    return name.removesuffix(".py").replace("/", ".").split(".")[0]


def row_of(package: str) -> int:
    for number, row in enumerate(ROWS):
        if package in row:
            return number
    raise AssertionError(f"{package} has no place in the architecture; give it one in ROWS")


def test_imports_point_down() -> None:
    climbing = []
    for module in modules():
        name = relative(module)
        if name == "__init__.py":
            continue
        package = package_of(name)
        for imported in imported_names(module):
            if not imported.startswith("regfs.") or imported == "regfs.__version__":
                continue
            other = package_of(imported.removeprefix("regfs."))
            if other != package and row_of(other) <= row_of(package):
                climbing.append(f"{name} imports {imported}")
    assert not climbing, "what is imported is not below"


def test_a_library_has_one_importer() -> None:
    found = []
    for module in modules():
        for imported in imported_names(module):
            importers = ONLY_IMPORTER.get(imported.split(".")[0])
            if importers is not None and relative(module) not in importers:
                found.append(f"{relative(module)} imports {imported}")
    assert not found


def test_only_one_module_prints() -> None:
    printing = {
        f"{relative(module)}:{node.lineno}"
        for module in modules()
        for node in nodes(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {place for place in printing if not place.startswith("cli/terminal.py:")} == set()


def test_the_environment_is_read_where_it_is_said_to_be() -> None:
    reading = {
        f"{relative(module)}:{node.lineno}"
        for module in modules()
        for node in nodes(module)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
    }
    assert {place for place in reading if place.partition(":")[0] not in ENVIRONMENT_USERS} == set()


def needed_modules(module: Path) -> set[str]:
    """Return the modules of the package, by their relative path, that *module* imports."""
    paths = {name.removeprefix("regfs.").replace(".", "/") for name in imported_names(module) if "." in name}
    return {f"{path}{end}" for path in paths for end in (".py", "/__init__.py") if (PACKAGE / f"{path}{end}").is_file()}


def test_no_import_goes_in_a_circle() -> None:
    """Within a package too: two modules that need each other are one."""
    needs = {relative(module): needed_modules(module) for module in modules()}
    while free := [module for module, needed in needs.items() if not needed & needs.keys()]:
        for module in free:
            del needs[module]
    assert not needs, f"these need each other, or one that does: {sorted(needs)}"
