"""Names that programs try in every directory: shells, git, editors, build tools, file managers.

Docker's rule takes most of them for a host (`README.md`, `Makefile`), and the rest could be a repository
(`node_modules`). Each prompt of a shell would send DNS queries and requests for them to foreign servers, so they do not
exist at the root of a mount and directly in a registry. Used by root.py and namespace.py. Pure; any thread.
"""

from __future__ import annotations

# Endings of file names that are no top-level domains, so that no registry is lost.
_FILE_ENDINGS = frozenset(
    {"adoc", "bak", "bazel", "bzl", "cabal", "cfg", "cmake", "conf", "csproj", "db", "desktop", "dll", "env",
     "exe", "exs", "gemspec", "gradle", "htm", "html", "inf", "ini", "ipynb", "iml", "jpg", "js", "json", "jsonc",
     "kts", "lnk", "lock", "lockb", "log", "lua", "markdown", "mod", "nimble", "nix", "old", "orig", "part",
     "png", "rdoc", "rockspec", "rst", "sbt", "sln", "sock", "sum", "swift", "swp", "tfvars", "tmp", "toml", "ts",
     "txt", "vim", "xml", "yaml", "yml", "zig"}
)  # fmt: skip
# Endings that are also top-level domains: after these words they are endings of files.
_WORDS_BEFORE = frozenset(
    {"agents", "app", "authors", "build", "changelog", "changes", "claude", "code_of_conduct", "configure", "conftest",
     "contributing", "contributors", "copying", "dodo", "fabfile", "faq", "hacking", "history", "index", "install",
     "lib", "licence", "license", "main", "maintainers", "manage", "meson", "news", "notice", "noxfile", "pipfile",
     "readme", "roadmap", "run", "security", "setup", "tasks", "test", "todo", "tox", "upgrading", "v", "wscript"}
)  # fmt: skip
_AMBIGUOUS_ENDINGS = frozenset({"build", "md", "org", "pl", "pm", "pod", "py", "rb", "rs", "sh", "tf", "zip"})
# Names without an ending that could be a repository's first component.
_PLAIN = frozenset({"autorun", "bower_components", "gtags", "jakefile", "justfile", "makefile", "node_modules",
                    "rakefile", "vagrantfile"})  # fmt: skip


def is_probed(name: str) -> bool:
    """Whether programs try *name* in every directory, and it means no registry and no repository."""
    if ":" in name:
        return False
    lower = name.lower()
    word, dot, ending = lower.rpartition(".")
    if not dot:
        return lower in _PLAIN
    return ending in _FILE_ENDINGS or (ending in _AMBIGUOUS_ENDINGS and word in _WORDS_BEFORE)


def is_bare_word(name: str) -> bool:
    """Whether *name* is a host by Docker's rule only for its upper-case letters: `HEAD`, `Makefile`, `LICENSE`.

    Hosts are not written so; programs try such names everywhere.
    """
    return "." not in name and ":" not in name and name != name.lower()
