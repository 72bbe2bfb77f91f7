"""Writing files so that a reader never sees half of one, and the same content is always the same bytes."""

import errno
import gzip
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel

from fsseg.data.prepare.scan import Scan
from fsseg.errors import DataError

UNFINISHED = ".unfinished"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end, or is removed on any exception.

    Raises DataError for a folder that cannot be written and for a full disk.
    """
    temporary = None
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says about writing to `path` into one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            raise DataError(
                f"{path}: the disk is full or the file too large ({reason}); make room or choose another --out"
            ) from None
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise DataError(
                f"{path.parent}: a file is where a folder is expected ({reason}); choose another --out"
            ) from None
        raise DataError(
            f"{path}: cannot be written ({reason}); expected a writable folder, choose another --out"
        ) from None


def remove_unfinished(folder: Path) -> None:
    """Removes what runs that died have left in a folder and the folders in it."""
    for pattern in (f".*{UNFINISHED}", f"*/.*{UNFINISHED}"):
        for path in folder.glob(pattern):
            with writing(path):
                path.unlink(missing_ok=True)


def write_nifti(path: Path, scan: Scan) -> None:
    """Writes a compressed NIfTI file whose bytes depend on nothing but the scan."""
    image = nibabel.Nifti1Image(scan.voxels, scan.affine, dtype=scan.voxels.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(scan.affine, code=1)
    # A quaternion holds no shear; such a file has the affine only.
    image.set_qform(None if scan.is_sheared else scan.affine, code=0 if scan.is_sheared else 1)
    content = image.to_bytes()
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed:
        packed.write(content)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def checksum(path: Path) -> str:
    """The file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    """What new files are denied; mkstemp denies more, and the finished file should be an ordinary one."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
