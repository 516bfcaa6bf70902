"""Run a program as an unprivileged user when we are root, wherever its binaries and its data lie.

Guarantee: only files that we made are given to that user or change their mode. Where that user cannot reach the data's
directory or the binaries (a checkout below /root), both go to a private directory below the system's temporary ones.
Not root: nothing of this happens.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from billing.core.errors import Fatal

CANDIDATES: Final = ("postgres", "nobody")
LINK: Final = "elsewhere"  # in the server's directory: where its data are when that user cannot reach them there


def user() -> int | None:
    """Return the user id to run as, or None when we are not root and simply run as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise Fatal(f"postgres: refuses to run as root, and none of these users exists: {', '.join(CANDIDATES)}")


def home(directory: Path, uid: int | None) -> Path:
    """Choose where this user's files go: `directory` itself, or one that it can reach, remembered by a link."""
    if uid is None:
        return directory
    directory.chmod(0o711)
    if _can(uid, 'cd "$0"', directory):
        return directory
    link = directory / LINK
    if link.is_dir() and link.lstat().st_uid == 0 and _can(uid, 'cd "$0"', link.resolve()):
        return link.resolve()
    link.unlink(missing_ok=True)
    for parent in (Path("/var/tmp"), Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - the name below it is random
        if parent.is_dir() and _can(uid, 'cd "$0"', parent):
            elsewhere = Path(tempfile.mkdtemp(prefix="celery-billing-", dir=parent))
            elsewhere.chmod(0o711)
            link.symlink_to(elsewhere)
            return elsewhere
    raise Fatal(f"postgres: user {pwd.getpwuid(uid).pw_name} can reach neither {directory} nor a temporary directory")


def executable(binaries: Path, program: str, home: Path, uid: int | None) -> Path:
    """Choose binaries that this user can run: the given ones, or a copy of their installation in `home`."""
    if uid is None or _can(uid, '"$0" --version', binaries / program):
        return binaries
    copy = home / "binaries"
    if not _can(uid, '"$0" --version', copy / binaries.parent.name / "bin" / program):
        _copy(binaries.parent, copy)
    copied = copy / binaries.parent.name / "bin"
    if not _can(uid, '"$0" --version', copied / program):
        raise Fatal(f"postgres: user {pwd.getpwuid(uid).pw_name} cannot run {copied / program}")
    return copied


def make_directory(path: Path, uid: int | None) -> None:
    """Make a directory that only this user can read."""
    path.mkdir(mode=0o700)
    give(path, uid)


def give(path: Path, uid: int | None) -> None:
    """Give a file of ours to this user."""
    if uid is not None:
        os.chown(path, uid, pwd.getpwuid(uid).pw_gid)


def _copy(installation: Path, copy: Path) -> None:
    """Copy an installation with the libraries that lie beside its package (`<package>.libs`) or in it (`.dylibs`)."""
    package = installation.parent
    if copy.exists():
        shutil.rmtree(copy)
    copy.mkdir()
    shutil.copytree(
        installation, copy / installation.name, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a")
    )
    beside = f"{package.name}.libs"
    for libraries, target in (
        (package.with_name(beside), copy.with_name(beside)),
        (package / ".dylibs", copy / ".dylibs"),
    ):
        if libraries.is_dir():
            shutil.copytree(libraries, target, symlinks=True, dirs_exist_ok=True)
            _open(target)
    _open(copy)


def _open(tree: Path) -> None:
    """Let everyone read our copy, whatever umask the original was installed under."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o055 if mode & 0o100 else 0o044))


def _can(uid: int, script: str, path: Path) -> bool:
    """Whether this user can do it: tried, not computed, since ACLs and mount options count too."""
    group = pwd.getpwuid(uid).pw_gid
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", script, path],
            user=uid,
            group=group,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
