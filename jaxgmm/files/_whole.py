"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

Content = str | bytes | memoryview


def write(folder: Path, files: Mapping[str, Content]) -> None:
    """Write files into a folder, made where it does not exist: all of them or none.

    Each is written beside its place, which it takes once all are whole.
    """
    made = _make(folder)
    whole: dict[Path, Path] = {}
    try:
        for name, content in files.items():
            path, content = folder / name, content.encode() if isinstance(content, str) else content
            # A pipe stays a pipe, and a link leads where it did.
            own = path.is_symlink() or (path.exists() and not path.is_file())
            beside = path if own else path.with_name(f".{name}.{os.getpid()}")
            if not own:
                whole[path] = beside
            with _naming(path):
                beside.write_bytes(content)
        for path, beside in whole.items():
            beside.replace(path)
    except BaseException:
        for beside in whole.values():
            beside.unlink(missing_ok=True)
        _unmake(made)
        raise


def check_folder(folder: Path) -> None:
    """Raise what `write` would raise of the folder; one that did not exist does not then."""
    made = _make(folder)
    try:
        with _naming(folder):
            tempfile.TemporaryFile(dir=folder).close()
    finally:
        _unmake(made)


def _make(folder: Path) -> list[Path]:
    """Make a folder: those that did not exist, the innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _unmake(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors name the path that the user knows."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
