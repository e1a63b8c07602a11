"""Whether a folder lies on a network file system, where SQLite's locks and its shared memory do not work.

Two hosts, or one host after a lost connection, would write into each other's pages: https://www.sqlite.org/wal.html
says that WAL «does not work over a network filesystem», and fsync there means what the server likes.
"""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
_NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb2",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "coda",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "ocfs2",
        "gfs2",
        "glusterfs",
        "davfs",
    ]
    + [f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph", "davfs2", "rclone", "s3fs", "smbnetfs", "curlftpfs")]
)


def network_file_system(path: Path, *, mounts: str | None = None) -> str | None:
    """The type of the network file system that `path` lies on, or None; also where nobody can tell.

    `mounts`: text in the form of /proc/self/mounts (fstab(5)); None: that file.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None  # no Linux
    place = path.resolve()
    found, depth = "", -1
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        # Of several on one folder the last one is on top.
        if place.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = fields[2], len(point.parts)
    return found if found in _NETWORK else None
