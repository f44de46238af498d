"""A device or file in use is found by what it is, however it is named and whatever lies between."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cowlib.device import Device, in_use, refuse_mounted, refuse_overlap, refuse_writing
from cowlib.device.in_use import hold
from cowlib.device.stack import Machine, Target, find_target
from cowlib.device.sysfs import BlockDevice
from cowlib.device.users import unescape
from cowlib.errors import DeviceError, MountedError
from tests import oracles

MIB = 1 << 20
MakeDevices = Callable[[int, int], list[str]]


def refused(path: str | Path, words: str) -> None:
    """Nobody may write there, whoever asks says why in the same words."""
    for ask in (refuse_mounted, refuse_writing, open_for_writing):
        with pytest.raises(MountedError, match=words):
            ask(path)


def free(*paths: str | Path) -> None:
    for path in paths:
        for ask in (refuse_mounted, refuse_writing, open_for_writing):
            ask(path)


def open_for_writing(path: str | Path) -> None:
    Device.open(path, write=True).close()


def needs_program(name: str) -> None:
    if shutil.which(name) is None and shutil.which(name, path="/usr/sbin:/sbin") is None:
        pytest.skip(f"needs the program {name}")


def run(*command: str | Path) -> str:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def name_of(device: str) -> str:
    return Path(device).name


class Loops:
    """`loop(path, *losetup's options)` attaches until the end of the test, or until `loop.detach(device)`."""

    def __init__(self) -> None:
        self._attached: list[str] = []

    def __call__(self, path: str | Path, *options: str) -> str:
        self._attached.append(oracles.attach(path, *options))
        return self._attached[-1]

    def detach(self, device: str) -> None:
        self._attached.remove(device)
        oracles.detach(device)

    def detach_all(self) -> None:
        while self._attached:
            self.detach(self._attached[-1])


@pytest.fixture
def loop() -> Iterator[Loops]:
    oracles.require_oracle("loop")
    loops = Loops()
    yield loops
    loops.detach_all()


@contextmanager
def mounted(source: str | Path, where: Path, *options: str) -> Iterator[Path]:
    """Mount it there, whatever it is."""
    where.mkdir(exist_ok=True)
    run("mount", *options, source, where)
    try:
        yield where
    finally:
        subprocess.run(["umount", "--quiet", where], check=False)


@contextmanager
def partition(disk: str, number: int, start: int, size: int) -> Iterator[str]:
    """Tell the kernel of a partition (bytes), as kernels that know no partition table on the disk have to be told."""
    run("addpart", disk, str(number), str(start // 512), str(size // 512))
    path = f"{disk}p{number}"
    try:
        if not Path(path).is_block_device():
            pytest.skip(f"no node appears for {path}")
        yield path
    finally:
        run("delpart", disk, str(number))


def ext4(path: str | Path) -> str | Path:
    oracles.require_oracle("mount", "mkfs.ext4")
    run("mkfs.ext4", "-q", "-F", path)
    return path


def test_nothing_uses_a_plain_file(tmp_path: Path) -> None:
    free(oracles.sparse(tmp_path / "image", MIB))
    refuse_mounted(tmp_path / "nothing")
    refuse_mounted(tmp_path)
    with pytest.raises(DeviceError, match="No such file"):
        refuse_writing(tmp_path / "nothing")


def test_names_as_the_kernel_escapes_them() -> None:
    assert unescape(rb"/mnt/with\040blank\134and\011tab\012and\303\244") == "/mnt/with blank\\and\ttab\nand\xe4"


# -- loop devices -------------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_a_loop_device_on_a_loop_device(tmp_path: Path, loop: Loops) -> None:
    image = oracles.sparse(tmp_path / "image", 128 * MIB)
    lower = loop(image)
    middle = loop(lower, "--offset", str(4 * MIB))
    upper = loop(middle)
    ext4(upper)
    free(image, lower, middle, upper)
    with mounted(upper, tmp_path / "where") as where:
        refused(upper, f"in use: mounted at {where}$")
        for path in (image, lower, middle):
            refused(path, f"in use: {name_of(upper)} stands on it, mounted at {where}$")
    with mounted(middle, tmp_path / "where") as where:
        refused(upper, f"in use: it stands on {name_of(middle)}, mounted at {where}$")
    free(image, lower, middle, upper)


@pytest.mark.oracle
def test_parts_of_one_file(tmp_path: Path, loop: Loops) -> None:
    image = oracles.sparse(tmp_path / "image", 128 * MIB)
    first = loop(image, "--sizelimit", str(64 * MIB))
    second = loop(image, "--offset", str(64 * MIB))
    across = loop(image, "--offset", str(64 * MIB - 512), "--sizelimit", str(MIB))
    whole = loop(image)
    with mounted(ext4(first), tmp_path / "where") as where:
        free(second)
        for path in (across, whole):
            refused(path, f"in use: {name_of(first)} stands on the same bytes, mounted at {where}$")
        refused(image, f"in use: {name_of(first)} stands on it, mounted at {where}$")
    with mounted(ext4(second), tmp_path / "where") as where:
        free(first)
        refused(across, f"{name_of(second)} stands on the same bytes, mounted at")
        with Device.open(first, write=True) as device:
            device.write(0, bytes(device.size))
            device.flush()
        run("umount", where)
        run("fsck.ext4", "-f", "-n", second)


@pytest.mark.oracle
def test_a_read_only_loop_device(tmp_path: Path, loop: Loops) -> None:
    image = oracles.sparse(tmp_path / "image", 16 * MIB)
    ext4(image)
    device = loop(image, "--read-only")
    with mounted(device, tmp_path / "where", "-o", "ro"):
        refused(image, f"{name_of(device)} stands on it, mounted at")
    free(image)


@pytest.mark.oracle
def test_other_names_of_the_same(tmp_path: Path, loop: Loops) -> None:
    image = oracles.sparse(tmp_path / "a name\nof two lines (deleted)", 64 * MIB)
    device = loop(image)
    others = [tmp_path / name for name in ("hard", "symbolic", "node", "bound")]
    others[0].hardlink_to(image)
    others[1].symlink_to(image)
    os.mknod(others[2], stat.S_IFBLK | 0o600, os.stat(device).st_rdev)
    others[3].touch()
    ext4(device)
    with image.open("rb") as file, mounted(device, tmp_path / "two\nlines") as where:
        run("mount", "--bind", image, others[3])
        try:
            names: list[str | Path] = [image, *others, f"/proc/self/fd/{file.fileno()}"]
            for path in names:
                refused(path, f"mounted at {where}$")
        finally:
            run("umount", others[3])
    image.unlink()  # the loop device stands on it all the same
    with mounted(device, tmp_path / "where"):
        refused(others[0], f"{name_of(device)} stands on it, mounted at")
    free(others[0])


@pytest.mark.oracle
def test_an_image_on_a_btrfs_subvolume(tmp_path: Path, loop: Loops) -> None:
    oracles.require_oracle("mount", "progs")
    outer = oracles.sparse(tmp_path / "outer", 256 * MIB)
    run(oracles.progs().mkfs, "-q", outer)
    with oracles.loop(outer) as device, oracles.mounted(device) as folder:
        run(oracles.progs().btrfs, "subvolume", "create", folder / "sub")
        image = oracles.sparse(folder / "sub" / "image", 32 * MIB)
        other = oracles.sparse(folder / "image", 32 * MIB)  # of the same inode number, likely
        inner = loop(image)
        with mounted(ext4(inner), tmp_path / "where") as where:
            refused(image, f"in use: {name_of(inner)} stands on it, mounted at {where}$")
            free(other)
        free(image)
        loop.detach(inner)


@pytest.mark.oracle
def test_an_image_on_an_overlay(tmp_path: Path, loop: Loops) -> None:
    oracles.require_oracle("mount", "mkfs.ext4")
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for folder in (lower, upper, work):
        folder.mkdir()
    oracles.sparse(lower / "image", 32 * MIB)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    with mounted("overlay", tmp_path / "overlay", "-t", "overlay", "-o", options) as folder:
        device = loop(folder / "image")
        try:
            with mounted(ext4(device), tmp_path / "where") as where:
                refused(folder / "image", f"in use: {name_of(device)} stands on it, mounted at {where}$")
        finally:
            loop.detach(device)
        free(folder / "image")


# -- mounts -------------------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_every_device_of_a_mounted_btrfs(tmp_path: Path, make_devices: MakeDevices) -> None:
    oracles.require_oracle("mount", "progs")
    first, second = make_devices(2, 128 * MIB)
    subprocess.run([oracles.progs().mkfs, "-q", "-f", "-d", "raid0", first, second], check=True)
    refuse_mounted(second)
    images = sorted(tmp_path.glob("device*.img"))
    with oracles.mounted(first) as where:
        refused(first, f"in use: mounted at {where}$")
        refused(second, f"in use: device of the mounted btrfs .*, mounted at {where}$")
        refused(images[0], f"{Path(first).name} stands on it, mounted at {where}$")
        refused(images[1], f"{Path(second).name} stands on it, device of the mounted btrfs .*, mounted at {where}$")
        with Device.open(second) as reader:
            assert reader.read(65536 + 64, 8).tobytes() == b"_BHRfS_M"
    for path in [first, second, *map(str, images)]:
        Device.open(path, write=True).close()


@pytest.mark.oracle
def test_another_loop_device_of_the_same_file(tmp_path: Path) -> None:
    oracles.require_oracle("mount", "progs")
    image = oracles.sparse(tmp_path / "image", 128 * MIB)
    with oracles.loops([image, image]) as (first, second):
        subprocess.run([oracles.progs().mkfs, "-q", "-f", first], check=True)
        with oracles.mounted(first) as where:
            refused(second, f"{Path(first).name} stands on the same bytes, mounted at {where}$")


@pytest.mark.oracle
def test_a_mount_in_another_namespace(tmp_path: Path, loop: Loops) -> None:
    needs_program("unshare")
    image = oracles.sparse(tmp_path / "image", 32 * MIB)
    device = loop(image)
    ext4(device)
    where = tmp_path / "where"
    where.mkdir()
    script = 'mount "$0" "$1" && echo mounted && read line'
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, device, where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as elsewhere:
        assert elsewhere.stdout is not None
        assert elsewhere.stdout.readline() == "mounted\n"
        assert not os.path.ismount(where)
        words = f"mounted at {where} in the mount namespace of process {elsewhere.pid}$"
        refused(device, f"in use: {words}")
        refused(image, f"in use: {name_of(device)} stands on it, {words}")
        elsewhere.communicate("\n")
    free(image, device)


@pytest.mark.oracle
def test_a_mount_that_no_table_shows(tmp_path: Path, loop: Loops) -> None:
    image = oracles.sparse(tmp_path / "image", 32 * MIB)
    device = loop(image)
    with mounted(ext4(device), tmp_path / "where") as where, (where / "file").open("w"):
        run("umount", "--lazy", where)
        refused(device, "in use: mounted elsewhere, or held by another program$")
        refused(image, f"{name_of(device)} stands on it, mounted elsewhere")


@pytest.mark.oracle
def test_an_image_that_is_mounted_without_a_loop_device(tmp_path: Path) -> None:
    oracles.require_oracle("mount", "mkfs.erofs")
    image, tree, where = (tmp_path / name for name in ("image", "tree", "where"))
    tree.mkdir()
    where.mkdir()
    run("mkfs.erofs", image, tree)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(image), os.fsencode(where), b"erofs", 1, None) != 0:  # MS_RDONLY
        pytest.skip(f"this kernel mounts no files: {os.strerror(ctypes.get_errno())}")
    try:
        refused(image, f"in use: mounted at {where}$")
    finally:
        run("umount", where)
    free(image)


@pytest.mark.oracle
def test_partitions(tmp_path: Path, loop: Loops) -> None:
    needs_program("addpart")
    image = oracles.sparse(tmp_path / "disk", 128 * MIB)
    disk = loop(image)
    start, size = MIB, 50 * MIB
    with partition(disk, 1, start, size) as one, partition(disk, 2, start + size, size) as two:
        same = loop(image, "--offset", str(start), "--sizelimit", str(size))
        gap = loop(image, "--offset", str(start + 2 * size))
        upper = loop(one)
        ext4(upper)
        try:
            free(image, disk, one, two, same, gap, upper)
            with mounted(one, tmp_path / "where") as where:
                refused(one, f"in use: mounted at {where}$")
                refused(disk, f"in use: its partition {name_of(one)}, mounted at {where}$")
                refused(image, f"in use: {name_of(one)} stands on it, mounted at {where}$")
                refused(same, f"in use: {name_of(one)} stands on the same bytes, mounted at {where}$")
                refused(upper, f"in use: it stands on {name_of(one)}, mounted at {where}$")
                free(two, gap)
            with mounted(upper, tmp_path / "where") as where:
                for path in (one, disk, image):
                    refused(path, f"in use: {name_of(upper)} stands on it, mounted at {where}$")
                free(two, gap)
            ext4(disk)
            with mounted(disk, tmp_path / "where") as where:
                for path in (one, two):
                    refused(path, f"in use: its disk {name_of(disk)}, mounted at {where}$")
                refused(gap, "in use: ")
            with Device.open(one, write=True), Device.open(two, write=True):  # of one filesystem, say
                refused(image, "held by another program")
        finally:
            loop.detach(upper)


# -- who writes has it for himself --------------------------------------------------------------------------


@pytest.mark.oracle
def test_nothing_can_be_mounted_while_we_write(tmp_path: Path, loop: Loops) -> None:
    image = oracles.sparse(tmp_path / "image", 32 * MIB)
    lower = loop(image)
    upper = loop(lower)
    ext4(upper)
    (tmp_path / "where").mkdir()
    for path in (image, lower, upper):
        with Device.open(path, write=True):
            for device in (lower, upper):
                said = subprocess.run(["mount", device, tmp_path / "where"], capture_output=True, text=True)
                assert "already mounted or" in said.stderr or "busy" in said.stderr
                assert said.returncode == 32
            for other in (image, lower, upper):
                with pytest.raises(MountedError):
                    Device.open(other, write=True)
        with mounted(upper, tmp_path / "where"):
            pass


@pytest.mark.oracle
def test_we_may_write_to_several_parts_at_once(tmp_path: Path, loop: Loops) -> None:
    image = oracles.sparse(tmp_path / "image", 32 * MIB)
    first = loop(image, "--sizelimit", str(16 * MIB))
    second = loop(image, "--offset", str(16 * MIB))
    whole = loop(image)
    with Device.open(first, write=True), Device.open(second, write=True) as device:
        device.close()
        with pytest.raises(MountedError):  # the first still has it
            Device.open(whole, write=True)
    free(whole)


@pytest.mark.oracle
def test_what_the_kernel_keeps_of_others_is_not_stale(tmp_path: Path, loop: Loops) -> None:
    image = oracles.sparse(tmp_path / "image", 16 * MIB)
    device = loop(image)
    with open(device, "r+b", buffering=0) as buffered:
        buffered.write(b"old" * 1000)  # in memory only, until the kernel likes to write it
        with Device.open(image, write=True) as writer:
            writer.write(0, b"new" * 1000)
            writer.flush()
        buffered.seek(0)
        assert buffered.read(3000) == b"new" * 1000
        os.fsync(buffered.fileno())
    assert image.read_bytes()[:3000] == b"new" * 1000


def test_what_a_virtual_machine_has_locked(tmp_path: Path) -> None:
    image = oracles.sparse(tmp_path / "image", MIB)
    script = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_SH, 1, 100); print(1); input()"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with pytest.raises(MountedError, match="in use: another program, such as a virtual machine, has locked it"):
            Device.open(image, write=True)
        other.communicate("\n")
    free(image)


@pytest.mark.oracle
def test_read_only_is_called_that(tmp_path: Path, loop: Loops) -> None:
    image = oracles.sparse(tmp_path / "image", MIB)
    device = loop(image, "--read-only")
    (tmp_path / "again").mkdir()
    with mounted(tmp_path, tmp_path / "again", "--bind", "-o", "ro") as again:
        run("mount", "-o", "remount,bind,ro", again)
        for path in (device, again / "image"):
            for ask in (refuse_writing, open_for_writing):
                with pytest.raises(DeviceError, match=r": is read-only$") as error:
                    ask(path)
                assert error.value.hint
    refuse_mounted(device)


@pytest.mark.oracle
def test_devices_that_share_bytes(tmp_path: Path, loop: Loops) -> None:
    needs_program("addpart")
    image = oracles.sparse(tmp_path / "image", 64 * MIB)
    (tmp_path / "hard").hardlink_to(image)
    stranger = oracles.sparse(tmp_path / "stranger", 64 * MIB)
    lower = loop(image)
    upper = loop(lower, "--offset", str(MIB))
    first, second = loop(image, "--sizelimit", str(8 * MIB)), loop(image, "--offset", str(8 * MIB))
    with partition(lower, 1, 8 * MIB, MIB) as inside:
        pairs: list[tuple[str | Path, str | Path]] = [
            (image, image),
            (image, tmp_path / "hard"),
            (image, lower),
            (lower, image),
            (image, upper),
            (lower, upper),
            (upper, lower),
            (upper, first),
            (image, inside),
            (inside, lower),
            (inside, second),
        ]
        for one, two in pairs:
            with pytest.raises(DeviceError, match=f"^{re.escape(str(two))}: shares bytes with {re.escape(str(one))}$"):
                refuse_overlap([stranger, one, two])
        refuse_overlap([first, second, stranger, tmp_path / "nothing"])
        refuse_overlap([first, inside])


@pytest.mark.oracle
def test_a_device_under_device_mapper(make_devices: MakeDevices) -> None:
    needs_program("dmsetup")
    (path,) = make_devices(1, 16 * MIB)
    name = f"cowtools-test-{Path(path).name}"
    made = subprocess.run(
        ["dmsetup", "create", name, "--table", f"0 {16 * MIB // 512} linear {path} 0"], capture_output=True
    )
    if made.returncode:
        pytest.skip("the kernel has no device mapper")
    try:
        refused(path, "in use: device dm-[0-9]+ stands on it$")
    finally:
        subprocess.run(["dmsetup", "remove", "--retry", name], check=True)
    refuse_mounted(path)


@pytest.mark.oracle
def test_swap_space(make_devices: MakeDevices) -> None:
    needs_program("swapon")
    needs_program("mkswap")
    (path,) = make_devices(1, 16 * MIB)
    subprocess.run(["mkswap", "-q", path], check=True, capture_output=True)
    if subprocess.run(["swapon", path], capture_output=True).returncode:
        pytest.skip("cannot swap here")
    try:
        refused(path, "in use: swap space$")
    finally:
        subprocess.run(["swapoff", path], check=True)
    refuse_mounted(path)


@pytest.mark.oracle
def test_a_swap_file(tmp_path: Path, loop: Loops) -> None:
    oracles.require_oracle("root", "swapon", "mkswap")
    image = tmp_path / "swap"
    image.write_bytes(bytes(8 * MIB))
    image.chmod(0o600)
    run("mkswap", image)
    if subprocess.run(["swapon", image], capture_output=True).returncode:
        pytest.skip("cannot swap here")
    try:
        refused(image, "in use: swap file$")
        refused(loop(image), "in use: it stands on a file, swap file$")
    finally:
        run("swapoff", image)
    free(image)


# -- device mapper, md and what else this kernel may lack: a tree of /sys as they make it --------------------


class FakeMachine:
    """A made-up `/sys` and `/proc`: `disk`, `partition`, `mapped` add devices, whose nodes there are not."""

    def __init__(self, folder: Path) -> None:
        self.machine = Machine(sys=folder / "sys", dev=folder / "dev", proc=folder / "proc")
        self.numbers: dict[str, str] = {}
        for name in ("sys/dev/block", "sys/block", "sys/fs/btrfs", "dev", "proc/self"):
            (folder / name).mkdir(parents=True)
        self.mounts("")

    def disk(self, name: str, number: str, *, slaves: tuple[str, ...] = ()) -> None:
        folder = self.machine.sys / "devices" / name
        self._device(folder, number)
        (self.machine.sys / "block" / name).symlink_to(folder)
        for slave in slaves:
            (folder / "slaves" / slave).symlink_to(self.folder(slave))
            (self.folder(slave) / "holders" / name).symlink_to(folder)

    def partition(self, name: str, number: str, disk: str, start: int, size: int) -> None:
        folder = self.folder(disk) / name
        self._device(folder, number)
        (folder / "partition").write_text("1\n")
        (folder / "start").write_text(f"{start // 512}\n")
        (folder / "size").write_text(f"{size // 512}\n")

    def loop(self, name: str, number: str, backing: str) -> None:
        self.disk(name, number)
        (self.folder(name) / "loop").mkdir()
        for file, text in (("backing_file", backing), ("offset", "0"), ("sizelimit", "0")):
            (self.folder(name) / "loop" / file).write_text(f"{text}\n")

    def mounts(self, text: str) -> None:
        (self.machine.proc / "self" / "mountinfo").write_text(text)

    def folder(self, name: str) -> Path:
        return Path(os.path.realpath(self.machine.sys / "dev" / "block" / self.numbers[name]))

    def _device(self, folder: Path, number: str) -> None:
        for name in ("slaves", "holders"):
            (folder / name).mkdir(parents=True)
        (folder / "dev").write_text(f"{number}\n")
        (folder / "size").write_text(f"{(1 << 30) // 512}\n")
        (self.machine.sys / "dev" / "block" / number).symlink_to(folder)
        self.numbers[folder.name] = number

    def target(self, name: str) -> Target:
        major, _, minor = self.numbers[name].partition(":")
        return Target(BlockDevice(int(major), int(minor)), f"/dev/{name}", self.machine)


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of devices which the kernel would say are busy; all others can be had."""
    names: set[str] = set()

    def open_exclusively(device: BlockDevice, machine: Machine) -> int:
        if machine.name(device) in names:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(in_use, "open_exclusively", open_exclusively)
    monkeypatch.setattr(in_use, "PAUSE", 0)
    return names


def busy(target: Target) -> str | None:
    """Why it may not be written to; None if it may."""
    try:
        hold(target, itself=True, strict=True).release()
    except MountedError as error:
        return error.message
    return None


@pytest.fixture
def server(tmp_path: Path) -> FakeMachine:
    """Two disks: volumes of LVM on an encrypted partition of one, an array over a partition of both."""
    fake = FakeMachine(tmp_path)
    for letter, minor in (("a", 0), ("b", 16)):
        fake.disk(f"sd{letter}", f"8:{minor}")
        for nth in range(3):
            fake.partition(
                f"sd{letter}{nth + 1}", f"8:{minor + nth + 1}", f"sd{letter}", (1 + nth * 300) * MIB, 300 * MIB
            )
    fake.disk("dm-0", "253:0", slaves=("sda2",))
    fake.disk("dm-1", "253:1", slaves=("dm-0",))
    fake.disk("dm-2", "253:2", slaves=("dm-0",))
    fake.disk("md0", "9:0", slaves=("sda3", "sdb3"))
    fake.partition("md0p1", "259:0", "md0", MIB, 100 * MIB)
    fake.partition("md0p2", "259:1", "md0", 101 * MIB, 100 * MIB)
    fake.mounts(
        "1 0 8:1 / /boot rw - ext4 /dev/sda1 rw\n"
        "2 0 253:1 / / rw - ext4 /dev/mapper/root rw\n"
        "3 0 259:0 / /srv rw - ext4 /dev/md0p1 rw\n"
    )
    return fake


def test_volumes_and_arrays(server: FakeMachine, claimed: set[str]) -> None:
    claimed |= {"sda", "sda1", "sda2", "sda3", "sdb", "sdb3", "dm-0", "dm-1", "md0", "md0p1"}
    assert {name: busy(server.target(name)) for name in server.numbers} == {
        "sda": "is in use: sda2 stands on it, device dm-0 stands on it",
        "sda1": "is in use: mounted at /boot",
        "sda2": "is in use: device dm-0 stands on it",
        "sda3": "is in use: device md0 stands on it",
        "sdb": "is in use: sdb3 stands on it, device md0 stands on it",
        "sdb1": None,
        "sdb2": None,
        "sdb3": "is in use: device md0 stands on it",
        "dm-0": "is in use: device dm-1 stands on it",
        "dm-1": "is in use: mounted at /",
        "dm-2": None,
        "md0": "is in use: its partition md0p1, mounted at /srv",
        "md0p1": "is in use: mounted at /srv",
        "md0p2": None,
    }


def test_volumes_of_one_disk_share_nothing_that_is_known(server: FakeMachine) -> None:
    def overlap(one: str, two: str) -> bool:
        assert server.target(one).overlaps(server.target(two)) == server.target(two).overlaps(server.target(one))
        return server.target(one).overlaps(server.target(two))

    for one, two in [("dm-1", "dm-2"), ("md0p1", "md0p2"), ("sda1", "sda2"), ("sda", "sdb"), ("dm-1", "sda1")]:
        assert not overlap(one, two)
    for one, two in [("dm-1", "dm-1"), ("dm-1", "dm-0"), ("dm-1", "sda2"), ("dm-2", "sda"), ("md0p1", "sdb3")]:
        assert overlap(one, two)


def test_a_device_that_only_the_kernel_knows_to_be_in_use(server: FakeMachine, claimed: set[str]) -> None:
    claimed.add("sdb1")
    assert busy(server.target("sdb1")) == "is in use: mounted elsewhere, or held by another program"
    claimed.add("sdb")
    assert busy(server.target("sdb1")) == "is in use: mounted elsewhere, or held by another program"
    assert busy(server.target("sdb2")) is None


def test_a_loop_device_that_has_no_node_here(tmp_path: Path) -> None:
    """As in containers, whose /dev is older than the loop device, and whose paths are others."""
    fake = FakeMachine(tmp_path)
    fake.loop("loop9", "7:9", "/srv/on the host/disk.img")
    (fake.folder("loop9") / "size").write_text(f"{MIB // 512}\n")
    same, other, longer = tmp_path / "disk.img", tmp_path / "other.img", tmp_path / "longer" / "disk.img"
    longer.parent.mkdir()
    for path, size in ((same, MIB), (other, MIB), (longer, 2 * MIB)):
        oracles.sparse(path, size)
    (tmp_path / "link").symlink_to(same)

    def target(path: Path) -> Target:
        found = find_target(path, Machine(sys=fake.machine.sys, dev=fake.machine.dev, proc=fake.machine.proc))
        assert found is not None
        return found

    for path in (same, tmp_path / "link"):
        assert busy(target(path)) == (
            f"may be in use: loop9 stands on it, and cannot be asked: there is no node for it in {fake.machine.dev}"
        )
        refuse_mounted(path, fake.machine)  # to read it nobody need know
    assert busy(target(other)) is None
    assert busy(target(longer)) is None
    (fake.folder("loop9") / "loop" / "backing_file").write_text(f"{other} (deleted)\n")
    assert (busy(target(same)), busy(target(other)) is None) == (None, False)
