"""A path's file system is found in mountinfo, and shared kinds are known."""

from pathlib import Path

import pytest

from llmop.store import filesystem

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /home rw shared:1 - nfs4 server:/home rw,vers=4.2
31 30 0:27 / /home/me/local rw - xfs /dev/sdb rw
32 22 0:28 / /scratch\\040one rw master:2 - lustre 10.0.0.1@tcp:/s rw
33 22 0:29 / /over rw - nfs server:/x rw
34 33 0:30 / /over rw - tmpfs tmpfs rw
35 22 0:31 / /mnt/far rw - fuse.sshfs me@there: rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/llmop/store.db", "ext4"),
        ("/home/me/store.db", "nfs4"),
        ("/home", "nfs4"),
        ("/homework/store.db", "ext4"),
        ("/home/me/local/store.db", "xfs"),
        ("/scratch one/store.db", "lustre"),
        ("/over/store.db", "tmpfs"),
        ("/mnt/far/store.db", "fuse.sshfs"),
    ],
)
def test_the_innermost_and_newest_mount_decides(path: str, kind: str) -> None:
    assert kind == filesystem.kind_of(Path(path), MOUNTS)


def test_a_path_that_leads_elsewhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/home/me")
    assert "nfs4" == filesystem.kind_of(tmp_path / "link" / "store.db", MOUNTS)


def test_without_mounts_nothing_is_known() -> None:
    assert "" == filesystem.kind_of(Path("/x"), "")


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "fuse", "9p"]
)
def test_what_several_hosts_mount_is_shared(kind: str) -> None:
    assert filesystem.is_shared(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", ""])
def test_what_one_host_mounts_is_local(kind: str) -> None:
    assert not filesystem.is_shared(kind)
