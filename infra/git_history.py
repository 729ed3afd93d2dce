"""A small git history written in this process: no git command, no identity or hook of the user, no subprocess.

Only what the model registry needs. dulwich comes with dvc.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedround.files import write_whole

_AUTHOR = b"fedround <fedround@localhost>"
STALE_AFTER_S = 5.0
"""A git command in a repository of small files holds a lock for milliseconds. Older locks are of processes that died."""


def create(root: Path) -> None:
    """Make `root` an empty repository on the branch 'main'."""
    from dulwich.repo import Repo

    with Repo.init(root, default_branch=b"main") as repo:
        config = repo.get_config()
        config.set("user", "name", "fedround")            # for whoever commits here by hand, where git knows no name
        config.set("user", "email", "fedround@localhost")
        config.write_to_path()


def commit(root: Path, files: Mapping[str, bytes], message: str, also: Sequence[str] = ()) -> None:
    """Write and commit `files` (path to content) and the paths `also`; nothing happens if HEAD has them already."""
    from dulwich.objects import Commit
    from dulwich.repo import Repo

    for name, content in files.items():
        write_whole(root / name, content, durable=True)
    with Repo(root) as repo:
        repo.object_store.fsync_object_files = True       # the commit must not outlive its files
        worktree = repo.get_worktree()
        worktree.stage([*files, *also])
        tree = repo.open_index().commit(repo.object_store)
        with contextlib.suppress(KeyError):               # KeyError: there is no commit yet
            head = repo[repo.head()]
            if isinstance(head, Commit) and head.tree == tree:
                return
        worktree.commit(message.encode(), committer=_AUTHOR, author=_AUTHOR, tree=tree, no_verify=True, sign=False)


def tag(root: Path, name: str) -> None:
    """Point a new tag at HEAD."""
    from dulwich.refs import Ref
    from dulwich.repo import Repo

    with Repo(root) as repo:
        if not repo.refs.add_if_new(Ref(b"refs/tags/" + name.encode()), repo.head()):
            raise FileExistsError(f"tag {name} exists")


def tags(root: Path) -> list[str]:
    """Every tag, in order."""
    from dulwich.refs import Ref
    from dulwich.repo import Repo

    with Repo(root) as repo:
        return sorted(name.decode() for name in repo.refs.as_dict(Ref(b"refs/tags")))


def read(root: Path, name: str) -> dict[str, bytes] | None:
    """The files at the top of the tree that tag `name` points at, or None if there is no such tag."""
    from dulwich.objects import Blob, Tree
    from dulwich.objectspec import parse_commit
    from dulwich.refs import Ref
    from dulwich.repo import Repo

    ref = Ref(b"refs/tags/" + name.encode())
    with Repo(root) as repo:
        if ref not in repo.refs:
            return None
        tree = repo[parse_commit(repo, ref).tree]
        if not isinstance(tree, Tree):
            return None
        found = ((entry.path.decode(), repo[entry.sha]) for entry in tree.iteritems())
        return {path: blob.data for path, blob in found if isinstance(blob, Blob)}


def clear_stale_locks(root: Path) -> None:
    """Remove the lock files that killed processes left, and wait for younger ones. Call it as the only writer."""
    control = root / ".git"
    for lock in control.rglob("*.lock"):          # dulwich locks loose objects too
        with contextlib.suppress(FileNotFoundError):
            latest = time.monotonic() + STALE_AFTER_S            # a clock that was set back makes no lock younger
            while time.time() - lock.stat().st_mtime < STALE_AFTER_S and time.monotonic() < latest:
                time.sleep(0.05)
            lock.unlink()


def commit_beside(root: Path, parent: str, files: Mapping[str, bytes], message: str) -> str:
    """Commit the files of `parent`'s tree with these in their place, away from every branch; returns the commit's name.

    parent: a tag or a commit's name. No file of the working tree is touched. It lasts as long as a tag points at it.
    """
    from dulwich.objects import Blob, Commit, Tree
    from dulwich.objectspec import parse_commit
    from dulwich.repo import Repo

    with Repo(root) as repo:
        repo.object_store.fsync_object_files = True
        before = parse_commit(repo, parent.encode())
        old = repo[before.tree]
        tree = Tree()
        for entry in old.iteritems() if isinstance(old, Tree) else ():
            tree.add(entry.path, entry.mode, entry.sha)
        for name, content in files.items():
            blob = Blob.from_string(content)
            repo.object_store.add_object(blob)
            tree.add(name.encode(), 0o100644, blob.id)
        made = Commit()
        made.tree, made.parents, made.author, made.committer = tree.id, [before.id], _AUTHOR, _AUTHOR
        made.commit_time = made.author_time = int(time.time())
        made.commit_timezone = made.author_timezone = 0
        made.encoding, made.message = b"UTF-8", message.encode()
        repo.object_store.add_object(tree)
        repo.object_store.add_object(made)
        return made.id.decode()


def committed_at(root: Path, name: str) -> float:
    """When the commit that a tag points at was made, in seconds since 1970."""
    from dulwich.objectspec import parse_commit
    from dulwich.repo import Repo

    with Repo(root) as repo:
        return float(parse_commit(repo, name.encode()).commit_time)
