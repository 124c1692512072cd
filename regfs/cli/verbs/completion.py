"""`regfs completion bash|zsh|fish`: a script that lets the shell complete verbs, options, images and paths."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from regfs.cli.arguments import Parser, add_common, verb_parser
from regfs.cli.terminal import tell

# Bash takes a colon for the end of a word, so candidates must leave out what stands before the last colon.
_BASH = """\
_regfs() {
    local line=${COMP_LINE:0:COMP_POINT} words IFS=$'\\n'
    words=(${line//[[:space:]]/$'\\n'})
    [[ $line == *[[:space:]] ]] && words+=('')
    local current=${words[-1]}
    local typed=${current%"${current##*[:=]}"}
    COMPREPLY=($(regfs complete -- "${words[@]:1}" 2>/dev/null))
    [[ $COMP_WORDBREAKS == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"$typed"}")
    COMPREPLY=("${COMPREPLY[@]% }")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[/:] ]] && compopt -o nospace
}
complete -o default -F _regfs regfs
"""
_ZSH = """\
#compdef regfs
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_regfs() {
    local -a found
    found=(${(f)"$(regfs complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    local -a open=(${(M)found:#*[/:]}) ended=(${found:#*[/:]})
    compadd -S '' -- $open
    compadd -- ${ended% }
    (( ${#found} )) || _files
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _regfs "$@"; else compdef _regfs regfs; fi
"""
_FISH = """\
function __regfs_candidates
    set -l words (commandline -opc)
    set -l found (regfs complete -- $words[2..-1] (commandline -ct) 2>/dev/null | string trim -r)
    if set -q found[1]
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c regfs -f -a '(__regfs_candidates)'
"""
SCRIPTS = {"bash": _BASH, "fish": _FISH, "zsh": _ZSH}


def parser() -> Parser:
    """Return the parser of its arguments."""
    made = verb_parser(
        "completion",
        "Print a script that completes verbs, options, images, tags and paths of cached images. For bash: "
        'eval "$(regfs completion bash)" in ~/.bashrc; for zsh the same in ~/.zshrc; for fish: regfs completion fish > '
        "~/.config/fish/completions/regfs.fish",
    )
    made.add_argument("shell", metavar="bash|zsh|fish", choices=sorted(SCRIPTS))
    return add_common(made)


def run(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the script."""
    del environment
    tell(SCRIPTS[given.shell].rstrip())
    return 0
