"""On what kind of file system a path lies, as /proc/self/mountinfo has it (proc(5))."""

from pathlib import Path

_SHARED = frozenset(
    (
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fhgfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb2",
        "smb3",
        "smbfs",
        "virtiofs",
        "wekafs",
    )
)


def is_shared(kind: str) -> bool:
    """Whether several hosts may write to a file system of this kind, so that memory shared through a file is not."""
    return kind in _SHARED or kind == "fuse" or kind.startswith("fuse.")


def kind_of(path: Path, mountinfo: str | None = None) -> str:
    """The kind of the file system `path` lies on, "" where the system doesn't tell. `path` need not exist yet."""
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    parts = path.resolve().parts
    best: tuple[str, ...] = ()
    kind = ""
    for line in mountinfo.splitlines():
        fields, _, source = line.partition(" - ")
        mounted_at = Path(_unescape(fields.split(" ")[4])).parts
        # Of two mounts on one folder the later one hides the earlier.
        if parts[: len(mounted_at)] == mounted_at and len(mounted_at) >= len(best):
            best, kind = mounted_at, source.split(" ")[0]
    return kind


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
