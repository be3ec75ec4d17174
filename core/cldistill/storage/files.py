"""Writing files so that a reader never sees half of one, and hashing them.

The order is always the same: write beside the place, flush to the disk, rename.  A rename within one folder is atomic
on POSIX, so a process killed at any moment leaves the old file or the new one, plus at most a hidden left-over.  An error
of the system leaves here as an `OSError` that names the file, whichever library met it.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from glob import escape
from pathlib import Path

CACHE_VARIABLE = "CLDISTILL_CACHE"
NOTED = 64 * 1024**2
"""Bytes of a file above which `noted` keeps a note."""
PARTIAL = ".partial"
"""Suffix of what is still being written; the name before it starts with a dot."""
BLOCK = 256 * 1024
BLOCKS = 64
"""Number of blocks of a large file that `sampled_digest` reads, spread over it; ``BLOCK`` is the bytes of each."""


def default_cache() -> Path:
    """Return the folder of the cache: ``$CLDISTILL_CACHE``, or ``~/.cache/cldistill``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "cldistill")


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in pieces; `file_digest` spares reading it twice."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """Return `sha256_file`, read once as long as the file's size and time stay: a teacher is loaded many times."""
    return noted("sha256", path, sha256_file)


def noted(kind: str, path: Path, find: Callable[[Path], str]) -> str:
    """Return what ``find`` says of a file, asked once as long as its place, size and time stay.

    Of a large file the answer is kept in the cache: fifty teachers of 2 GB are read once, and not at every start.
    """
    status = path.stat()
    return _noted(kind, path.absolute(), find, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _noted(kind: str, path: Path, find: Callable[[Path], str], size: int, time: int) -> str:
    note = default_cache() / kind / sha256_bytes(f"{path!s}\0{size}\0{time}".encode(errors="surrogateescape"))
    if size > NOTED and note.exists():
        return note.read_text(encoding="utf-8")
    found = find(path)
    with suppress(OSError):  # without a note it is read again
        if size > NOTED:
            atomic_write_text(note, found)
    return found


def sampled_digest(path: Path) -> str:
    """Hash a file's size, and all of it or `BLOCKS` blocks of it: fifty teachers of 2 GB are judged in a second."""
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    whole = size <= BLOCK * BLOCKS
    with path.open("rb") as file:
        for offset in range(0, size, BLOCK) if whole else ((size - BLOCK) * i // (BLOCKS - 1) for i in range(BLOCKS)):
            file.seek(offset)
            found.update(file.read(BLOCK))
    return found.hexdigest()


@lru_cache
def source_digest(folder: Path) -> str:
    """Return a SHA-256 of the names and contents of all Python files in and below a folder, read once a process."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        found.update(file.relative_to(folder).as_posix().encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk (a no-op where the system cannot open folders, as on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Flush a file that somebody else wrote to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an error of the system, also one of a library in Rust, into an `OSError` that names ``path`` if it names none."""
    try:
        yield
    except Exception as error:
        # As Rust says it (safetensors, tokenizers), and shutil, which lists what it could not copy.
        told = re.search(r"(?:\(os error|\[Errno) (\d+)", str(error))
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path) if error.filename is None else error.filename
        elif told is not None:
            raise OSError(int(told[1]), os.strerror(int(told[1])), str(path)) from error
        raise


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, until the block or the process ends; BlockingIOError where another has it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(folder / ".lock", timeout=0), folder / ".writer"
    try:
        lock.acquire()
    except Timeout:
        who = "another process"
        with suppress(OSError):  # it may just be leaving
            who = note.read_text(encoding="utf-8")
        raise BlockingIOError(errno.EAGAIN, f"{who} is writing there", str(folder)) from None
    try:
        atomic_write_text(note, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file in one step: yields a hidden sibling to be written, which takes the name ``path`` at the end.

    Readers see the old content or all of the new.  Makes missing parent folders.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        with naming(path):
            yield partial
            fsync_file(partial)  # else a power cut can leave the name without the content
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write ``path`` in one step."""
    with atomic_file(path) as partial:
        partial.write_bytes(data)


def atomic_write_text(path: Path, text: str) -> None:
    """Write ``path`` in one step, as UTF-8 with the newlines of ``text``."""
    atomic_write_bytes(path, text.encode())


@contextmanager
def write_aside(folder: Path) -> Iterator[Path]:
    """Fill a folder in one step: yields a hidden sibling, which takes the name ``folder`` when the block ends.

    Every file and folder inside is flushed to the disk first.  If the block raises, nothing of it stays and an older
    ``folder`` is untouched.  An existing ``folder`` is replaced.  What killed writers left of it is deleted first: the
    caller is the `only_writer` of the folder around it, or of one further out.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(folder)
    name = partial.name.rpartition(f".{socket.gethostname()}.")[0]
    for left in [*folder.parent.glob(f"{escape(name)}.*.????????{PARTIAL}")]:
        remove(left)
    partial.mkdir()
    try:
        with naming(folder):
            yield partial
            _fsync_tree(partial)
            _replace_folder(partial, folder)
    except BaseException:
        remove(partial)
        raise
    fsync_folder(folder.parent)


def partial_path(path: Path) -> Path:
    """Return a new name beside ``path``, in which it is prepared: no other writer's, also in a container on another machine."""
    name = path.name.encode(errors="replace")[:100].decode(errors="ignore")  # a name has room for 255 bytes
    return path.with_name(f".{name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL}")


def remove(path: Path) -> None:
    """Delete a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            fsync_file(path)
        elif path.is_dir():
            fsync_folder(path)
    fsync_folder(folder)


def _replace_folder(new: Path, folder: Path) -> None:
    """Rename ``new`` to ``folder``; what is there changes names with it, in one step where the system can (Linux)."""
    if not folder.exists():
        new.rename(folder)
        return
    exchange = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    here = -100  # AT_FDCWD: paths start from the current folder
    if exchange is not None and exchange(here, os.fsencode(new), here, os.fsencode(folder), 2) == 0:  # RENAME_EXCHANGE
        fsync_folder(folder.parent)  # before the old one, now under the other name, is deleted
        remove(new)
        return
    # Elsewhere a folder cannot be renamed over a filled one: the old one steps aside first.
    old = partial_path(folder)
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    remove(old)
