"""What a file may ask for, before any memory is taken for it."""

from __future__ import annotations

from pathlib import Path

from quantisp.errors import ImageError

__all__ = ["MOST_PIXELS", "check_size", "damaged", "file_size", "reason"]

# Larger than any sensor sold; the codes of so many take half a gigabyte.
MOST_PIXELS = 1 << 28
# No codec that is read here makes more of a byte than deflate (1032) and LZW (some 2700 at best).
MOST_EXPANSION = 3000


def file_size(path: Path) -> int:
    """In bytes.

    Raises:
        ImageError: there is no such file, or it cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb"):
            return size
    except FileNotFoundError:
        raise ImageError(
            f"expected a raw file at {path}, found nothing: correct the path"
        ) from None
    except OSError as error:
        raise ImageError(
            f"expected a raw file at {path}, found {error.strerror}: correct the path"
        ) from error


def check_size(path: Path, width: int, height: int, *, stored_bytes: int) -> None:
    """Refuse a picture of no pixels, of too many, or of more than so many bytes can hold.

    Raises:
        ImageError: it is one.
    """
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise damaged(path, f"1 to {MOST_PIXELS} pixels", f"a header of {height}x{width}")
    if width * height > MOST_EXPANSION * stored_bytes:
        raise damaged(
            path, "a whole file", f"a header of {height}x{width} px over {stored_bytes} B"
        )


def damaged(path: Path, expected: str, found: str) -> ImageError:
    """The one line for a file that does not hold what it says."""
    return ImageError(f"expected {expected} in {path}, found {found}: replace the file")


def reason(error: Exception) -> str:
    """What an error says, in one line, as what was found in a file."""
    if isinstance(error, FileNotFoundError):
        return "nothing"
    # LibRaw's come as bytes.
    first = error.args[0] if error.args else ""
    text = first.decode("utf-8", "replace") if isinstance(first, bytes) else str(error)
    return " ".join(text.split()) or type(error).__name__
