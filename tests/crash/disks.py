"""Disks to break: an ext4 file system in a loop file that can lose power, and a small one in memory that can fill up.

Both are mounted, which needs root; where that cannot be, `CannotMount` says why and the test is skipped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from pathlib import Path
from typing import Self

#: linux/fs/ext4/ext4.h: _IOR('X', 125, __u32), and the flag that throws away what the journal has not written yet.
_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2


class CannotMount(Exception):
    """No file system can be mounted here."""


def _run(*command: str | Path) -> None:
    try:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        raise CannotMount(f"{command[0]} is not installed") from error
    if done.returncode:
        raise CannotMount(f"{command[0]}: {done.stderr.strip().splitlines()[0] if done.stderr.strip() else 'failed'}")


def _must_be_root() -> None:
    if os.geteuid() != 0:
        raise CannotMount("mounting a file system needs root")


class LoopDisk:
    """A mounted ext4 in a file; `cut_power` as often as wanted."""

    def __init__(self, folder: Path, *, mebibytes: int = 48) -> None:
        _must_be_root()
        self.path = folder / "mounted"
        self._image = folder / "disk.img"
        self.path.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(mebibytes * 2**20)
        _run("mkfs.ext4", "-q", "-F", self._image)

    def mount(self) -> None:
        _run("mount", "-o", "loop", self._image, self.path)

    def cut_power(self) -> None:
        """From here on nothing reaches the disk and every call fails; what was not flushed is gone. Mounted again by `restore`."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def restore(self) -> None:
        """After `cut_power`, when nobody uses it any more."""
        _run("umount", self.path)
        self.mount()

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(CannotMount):
            _run("umount", self.path)


class SmallDisk:
    """A mounted tmpfs of a few megabytes."""

    def __init__(self, path: Path, *, mebibytes: int) -> None:
        _must_be_root()
        self.path = path
        self._size = mebibytes
        self.path.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size}m", "tmpfs", self.path)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(CannotMount):
            _run("umount", self.path)
