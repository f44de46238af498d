#!/usr/bin/env bash
# Installs the commands for everybody, or takes them away again.
#
#   install.sh [--remove] PREFIX     PREFIX: /usr/local, or another directory with an absolute name
#
# All of it stands in PREFIX/lib/cowtools, a virtual environment of its own; commands, manual pages and completions are
# links to it, in PREFIX/bin and PREFIX/share. Nothing is written to the directory that this project stands in.
set -euo pipefail

project=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
remove=
if [[ ${1:-} == --remove ]]; then
    remove=yes
    shift
fi
prefix=${1:?which PREFIX?}
if [[ $prefix != /* ]]; then
    echo "install.sh: PREFIX must be an absolute name of a directory: $prefix" >&2
    exit 1
fi
prefix=${prefix%/}
home=$prefix/lib/cowtools
commands=(mkfs.cow fsck.cow cow-debug-tree)

remove_links() {
    local link
    for link in "$prefix"/bin/* "$prefix"/share/man/man8/* "$prefix"/share/bash-completion/completions/* \
        "$prefix"/share/zsh/site-functions/* "$prefix"/share/fish/vendor_completions.d/*; do
        if [[ -L $link && $(readlink "$link") == "$home"/* ]]; then
            rm "$link"
        fi
    done
}

if [[ $remove ]]; then
    remove_links
    rm -rf "$home"
    exit
fi

work=$(mktemp -d -t cowtools-install-XXXXXX)
trap 'rm -rf "$work"' EXIT
# Building leaves files behind, which would belong to root in somebody's checkout.
tar -C "$project" -c --exclude=./.git --exclude='./.venv*' --exclude='./.*_cache' --exclude=__pycache__ \
    --exclude='./*.egg-info' --exclude=./build --exclude=./dist --exclude=./tests . | tar -x -C "$work"

remove_links
mkdir -p "$prefix/lib"
"$python" -m venv --clear "$home"
(cd "$project" && "$home/bin/pip" install --quiet --disable-pip-version-check "$work")

mkdir -p "$prefix/bin"
for command in "${commands[@]}"; do
    ln -sf "$home/bin/$command" "$prefix/bin/$command"
done
(cd "$work" && find share -type f) | while read -r page; do
    mkdir -p "$prefix/$(dirname "$page")"
    ln -sf "$home/$page" "$prefix/$page"
done
echo "installed: $(printf "$prefix/bin/%s " "${commands[@]}")"
