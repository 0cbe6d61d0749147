"""Other revisions of the git repository that the current folder is in."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from creditbench.errors import UsageError


def root() -> Path:
    """The repository's top folder. Raises `UsageError` outside of one."""
    if shutil.which("git") is None:
        raise UsageError("no command git: install git, which knows the other revision")
    answer = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True)
    if answer.returncode:
        why = answer.stderr.strip().removeprefix("fatal: ")
        raise UsageError(
            f"{Path.cwd()} is in no git repository ({why}): run this inside the one that is meant"
        )
    return Path(answer.stdout.removesuffix("\n"))


def resolve(revision: str) -> str:
    """The full hash of a commit. Raises `UsageError` for a name that git does not know."""
    answer = _git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}")
    if answer.returncode:
        raise UsageError(
            f"git knows no commit {revision!r}: name a branch, tag or hash; "
            "in a shallow clone fetch it first, as with git fetch --unshallow"
        )
    return answer.stdout.strip()


def changed(revision: str) -> list[Path]:
    """Paths of files that are new or changed since the checkout left that revision, without ignored ones."""
    start = _git("merge-base", resolve(revision), "HEAD")
    if start.returncode:
        raise UsageError(f"this checkout and {revision!r} have no commit in common: name another revision")
    differing = _git("diff", "--name-only", "--diff-filter=d", "-z", start.stdout.strip())
    new = _git("ls-files", "--others", "--exclude-standard", "-z")
    return sorted(Path(name) for name in {*differing.stdout.split("\0"), *new.stdout.split("\0")} if name)


@contextlib.contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """A temporary folder with that revision, always removed at the end."""
    commit = resolve(revision)
    with tempfile.TemporaryDirectory(prefix="creditbench-") as folder:
        path = Path(folder).resolve() / "base"
        try:
            answer = _git("worktree", "add", "--detach", "--quiet", str(path), commit)
            if answer.returncode:
                raise UsageError(f"git cannot check out {revision!r}: {answer.stderr.strip()}")
            yield path
        finally:
            _git("worktree", "remove", "--force", str(path))


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    # In a session of its own: Ctrl-C must not end the command that clears up.
    command = ["git", "-C", str(root()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, start_new_session=True)
