"""Pictures as files: in the format that their name ends with, all or nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsseg.errors import FssegError
from fsseg.system.files import replacing
from fsseg.system.names import visible
from fsseg.system.targets import require_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg", "jpg", "jpeg", "tif", "tiff", "webp", "eps")
"""The endings of pictures that can be drawn."""


HAIR_SPACE = "\u200a"


def require_picture(path: Path) -> None:
    """Checks the name of a picture before the work of drawing it.

    Raises:
        FssegError: It is a folder, or ends with a format that cannot be drawn.
    """
    require_file(path)
    _format(path)


def save_picture(figure: "Figure", path: Path, **how: Any) -> None:
    """Writes a figure in the format that the file's name ends with, PNG where it ends with none.

    Args:
        figure: The figure.
        path: The file.
        how: Further arguments of `Figure.savefig`.

    Raises:
        FssegError: The name is that of a folder or of another format, or the file cannot be written.
    """
    of_name = _format(path)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format=of_name, **how)


def _format(path: Path) -> str:
    ending = path.suffix.removeprefix(".").lower()
    if not ending:
        return "png"
    if ending not in FORMATS:
        endings = ", ".join(f".{known}" for known in FORMATS)
        raise FssegError(
            f"{path}: ends with .{ending}, expected the ending of a picture: {endings}; choose one of them"
        )
    return ending


def drawn(name: object) -> str:
    r"""Returns a name as a figure has to be given it so that it is drawn letter by letter.

    Between two dollars matplotlib sees a formula, and it leaves what begins with an underscore out of legends.

    Example:
        >>> drawn("$50 to $70")
        '\\$50 to \\$70'
    """
    text = visible(str(name)).replace("$", r"\$")
    return f"{HAIR_SPACE}{text}" if text.startswith("_") else text
