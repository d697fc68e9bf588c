"""Mounts: whether a local path is on a file system of a network."""

import os

import psutil

_NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"}


def is_on_network(path: str) -> bool:
    """Whether others may see what is at a path later than this machine; also of what is not there.

    True of any file system in user space (FUSE), which mostly stand before a network.
    """
    path = os.path.realpath(path)
    mounts = {
        mount.mountpoint: mount.fstype
        for mount in psutil.disk_partitions(all=True)
        if f"{path}/".startswith(f"{mount.mountpoint.rstrip('/')}/")
    }
    kind = mounts[max(mounts, key=len)] if mounts else ""
    return kind in _NETWORK or kind.startswith("fuse.") or kind == "fuse"
