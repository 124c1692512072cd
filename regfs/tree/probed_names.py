"""Names that programs try in every directory: shells, git, editors, build tools, file managers.

By Docker's rule most of them are hosts (`README.md`, `Makefile`), and the rest could be repositories (`node_modules`).
Each shell prompt would send DNS queries and requests for them to foreign servers, so they do not exist at the root of a
mount and directly below a registry. Used by root.py and namespace.py. Pure; any thread.
"""

from __future__ import annotations

# File name suffixes that are not top-level domains, so no registry becomes unreachable.
_FILE_ENDINGS = frozenset(
    {"adoc", "bak", "bazel", "bzl", "cabal", "cfg", "cmake", "conf", "csproj", "db", "desktop", "dll", "env",
     "exe", "exs", "gemspec", "gradle", "htm", "html", "inf", "ini", "ipynb", "iml", "jpg", "js", "json", "jsonc",
     "kts", "lnk", "lock", "lockb", "log", "lua", "markdown", "mod", "nimble", "nix", "old", "orig", "part",
     "png", "rdoc", "rockspec", "rst", "sbt", "sln", "sock", "sum", "swift", "swp", "tfvars", "tmp", "toml", "ts",
     "txt", "vim", "xml", "yaml", "yml", "zig"}
)  # fmt: skip
# Suffixes that are also top-level domains: after these words they are suffixes of files.
_WORDS_BEFORE = frozenset(
    {"agents", "app", "authors", "build", "changelog", "changes", "claude", "code_of_conduct", "configure", "conftest",
     "contributing", "contributors", "copying", "dodo", "fabfile", "faq", "hacking", "history", "index", "install",
     "lib", "licence", "license", "main", "maintainers", "manage", "meson", "news", "notice", "noxfile", "pipfile",
     "readme", "roadmap", "run", "security", "setup", "tasks", "test", "todo", "tox", "upgrading", "v", "wscript"}
)  # fmt: skip
_AMBIGUOUS_ENDINGS = frozenset({"build", "md", "org", "pl", "pm", "pod", "py", "rb", "rs", "sh", "tf", "zip"})
# Names without a suffix that could be the first component of a repository.
_PLAIN = frozenset({"autorun", "bower_components", "gtags", "jakefile", "justfile", "makefile", "node_modules",
                    "rakefile", "vagrantfile"})  # fmt: skip


def is_probed(name: str) -> bool:
    """Whether *name* is one that programs try in every directory; it counts as neither a registry nor a repository."""
    if ":" in name:
        return False
    lower = name.lower()
    word, dot, ending = lower.rpartition(".")
    if not dot:
        return lower in _PLAIN
    return ending in _FILE_ENDINGS or (ending in _AMBIGUOUS_ENDINGS and word in _WORDS_BEFORE)


def is_bare_word(name: str) -> bool:
    """Whether *name* is a host by Docker's rule only because of upper-case letters: `HEAD`, `Makefile`, `LICENSE`.

    Hosts are not written like this, but programs try such names everywhere.
    """
    return "." not in name and ":" not in name and name != name.lower()
