#!/usr/bin/env bash
# Makes a filesystem, fills it, mounts it, changes it, checks it, and looks at it, printing each command before it runs.
#
#   demo.sh [TREE]      TREE: a directory to fill the filesystem from (this project, if none is named)
#
# As root on a loop device, with the kernel's own mount; in an image file and without for anyone else, and where root may
# not either, as in most containers.
# Whatever happens, the device is detached and the mount undone.
set -euo pipefail

project=$(cd "$(dirname "$0")/.." && pwd)
tree=${1:-}
PATH="$PATH:/usr/sbin:/sbin"

work=$(mktemp -d -t cowtools-demo-XXXXXX)
image=$work/disk.img
mountpoint=$work/mnt
device=
why=

clean_up() {
    status=$?
    trap - EXIT
    if mountpoint -q "$mountpoint" 2>/dev/null; then
        umount "$mountpoint" || umount --lazy "$mountpoint" || status=1
    fi
    if [[ -n $device ]]; then
        losetup --detach "$device" || status=1
    fi
    rm -rf "$work"
    if ((status)); then
        echo "the demonstration failed" >&2
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() {
    printf '\n# %s\n' "$*"
}

show() { # the command as one would type it
    local words
    printf -v words ' %q' "$@"
    printf '$%s\n' "$words"
}

run() {
    show "$@"
    "$@"
}

run_head() { # run_head LINES COMMAND...: the first lines of what it prints
    local lines=$1
    shift
    show "$@" | sed "s/\$/ | head -n $lines/"
    "$@" >"$work/output"
    head -n "$lines" "$work/output"
    echo "... ($(wc -l <"$work/output") lines)"
}

has_btrfs() {
    grep -qw btrfs /proc/filesystems || { modprobe btrfs 2>/dev/null && grep -qw btrfs /proc/filesystems; }
}

attach() { # the image file, in $device; what keeps it from that, in $why
    if [[ $(id -u) != 0 ]]; then
        why="not root"
    elif ! has_btrfs; then
        why="no btrfs in this kernel"
    elif ! command -v losetup mount umount >/dev/null; then
        why="no losetup or no mount here"
    elif ! device=$(losetup --find --show "$image" 2>"$work/said"); then
        device=
        why="no loop device ($(tail -n 1 "$work/said"))"
    fi
    [[ -n $device ]]
}

mount_it() { # succeeds if it is mounted, fails if that is not allowed here; any other failure is one of the filesystem
    show mount -t btrfs "$device" "$mountpoint"
    if mount -t btrfs "$device" "$mountpoint" 2>"$work/said"; then
        return 0
    fi
    cat "$work/said"
    if grep -qi -e 'permission denied' -e 'not permitted' -e 'must be superuser' "$work/said"; then
        say "Root may not mount here, as in most containers: without, then"
        return 1
    fi
    exit 1
}

fill() { # what to fill the filesystem from: a named directory, or this project without what git ignores
    if [[ -n $tree ]]; then
        return
    fi
    tree=$work/tree
    mkdir "$tree"
    (cd "$project" && tar -c --exclude=.git --exclude=.venv --exclude='.*_cache' --exclude=__pycache__ \
        --exclude='*.egg-info' --exclude=.hypothesis .) | tar -x -C "$tree"
}

fill
mkdir "$mountpoint"
bytes=$(du -s --apparent-size --block-size=1 "$tree" | cut -f1)
size=$((bytes * 2 / 1048576 + 256))M

say "An image file of $size, all of it a hole"
run truncate -s "$size" "$image"
target=$image
if attach; then
    show losetup --find --show "$image"
    echo "$device"
    target=$device
else
    say "The image file will do, without mounting it: $why"
fi

say "A filesystem on it, filled from a directory"
run mkfs.cow --label demo --compress zstd --rootdir "$tree" "$target"

if [[ -n $device ]] && say "The kernel mounts it" && mount_it; then
    run ls -l "$mountpoint"
    if [[ -z $(find "$tree" ! -type f ! -type d ! -type l -print -quit) ]]; then # diff does not know other types
        run diff --recursive --no-dereference "$tree" "$mountpoint"
    fi
    say "... and writes to it"
    run cp "$project/README.md" "$mountpoint/written-by-the-kernel"
    run df -h "$mountpoint"
    run umount "$mountpoint"
fi

say "Is it sound? Every block, name and reference, and every copy of all data"
run fsck.cow --data "$target"

say "What is on the disk now, tree by tree"
run_head 40 cow-debug-tree "$target"
say "... and in numbers"
run cow-debug-tree --stats "$target"

if command -v btrfs >/dev/null; then
    say "btrfs-progs has nothing to complain about"
    run btrfs check --check-data-csum "$target"
fi

say "That is all. Everything is detached and removed again."
