"""Writing files so that a reader never sees half of one, and the same content is always the same bytes."""

import gzip
import hashlib
from pathlib import Path

import nibabel

from fsseg.prepare.scan import Scan
from fsseg.system.files import UNFINISHED, writing


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
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed,
    ):
        packed.write(content)


def checksum(path: Path) -> str:
    """The file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
