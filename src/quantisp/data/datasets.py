"""The data sets that the paper trained on, recognised by their published folders."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from quantisp.data.hdrplus import (
    HDRPlusFile,
    Source,
    develop_merged,
    find_bursts,
    is_hdrplus,
    read_final,
)
from quantisp.data.images import SAMPLE, ImageFile, Samples, find_images, read_picture
from quantisp.errors import ImageError, SettingError

__all__ = ["Dataset", "find_dataset", "read_training_picture"]

log = logging.getLogger(__name__)

MIT_SPLITS = ("train", "val", "test")
MIT_SUBSETS = ("hdrvdp", "moire")
FILE_LIST = "filelist.txt"
# Of listed files that are not there, this many are named; a part of a download lacks millions.
MOST_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Pictures to train on.

    Args:
        name: the layout that was recognised; ``folder`` is any other.
        train: not empty; each is read by ``read_training_picture``.
        validation: the split that the data set publishes for it; empty where it has none.
    """

    name: Literal["folder", "mit-demosaicking", "hdr+"]
    train: tuple[ImageFile, ...]
    validation: tuple[ImageFile, ...]


def find_dataset(source: str | Path, *, hdrplus: str = "final") -> Dataset:
    """The pictures of a data set, or of any folder, file or glob.

    Recognised are the root of the MIT demosaicking set, with ``{train,val,test}/{hdrvdp,moire}/``,
    and of HDR+, with ``bursts/ID/`` and ``results_DATE/ID/``. Everything else is a plain folder.

    Args:
        source: the data set's root, or whatever ``find_images`` takes.
        hdrplus: what of an HDR+ burst is taken, ``final`` (8 bits, tone-mapped, reduced) or
            ``merged`` (16 bits, developed from the merged mosaic).
    Raises:
        SettingError: ``hdrplus`` is neither.
        ImageError: nothing is there to train on.
    Source: Gharbi et al., "Deep joint demosaicking and denoising", ACM Transactions on Graphics
        35(6), 2016; Hasinoff et al. 2016.
    """
    chosen = _source(hdrplus)
    root = Path(source).expanduser()
    try:
        if str(source) == SAMPLE or not root.is_dir():
            return Dataset(name="folder", train=find_images([source]), validation=())
        if any((root / split / subset).is_dir() for split in MIT_SPLITS for subset in MIT_SUBSETS):
            return _find_mit(root)
        if is_hdrplus(root):
            return Dataset(name="hdr+", train=find_bursts(root, chosen), validation=())
    except OSError as error:
        raise ImageError(f"cannot read {source} ({error.strerror}): correct the path") from error
    return Dataset(name="folder", train=find_images([source]), validation=())


def read_training_picture(file: ImageFile) -> Samples:
    """Read a picture of a data set, developed where it has to be.

    Returns:
        sRGB, (h, w, 3), uint8 or uint16. HDR+ pictures have half the size of their files.
    Raises:
        ImageError: the picture, or what it is developed with, is missing or damaged.
    """
    if not isinstance(file, HDRPlusFile):
        return read_picture(file.path).samples
    return read_final(file) if file.source == "final" else develop_merged(file)


def _source(hdrplus: str) -> Source:
    if hdrplus not in ("final", "merged"):
        raise SettingError(
            f"expected final or merged as the source of HDR+ pictures, found {hdrplus!r}: "
            "choose one of the two"
        )
    return "final" if hdrplus == "final" else "merged"


def _find_mit(root: Path) -> Dataset:
    train = _find_split(root, "train")
    if not train:
        raise ImageError(
            f"expected PNG files in {root / 'train'} (hdrvdp/ or moire/), found none: "
            "download that part of the data set, or name another folder"
        )
    return Dataset(name="mit-demosaicking", train=train, validation=_find_split(root, "val"))


def _find_split(root: Path, split: str) -> tuple[ImageFile, ...]:
    """What the split's list names, or else what its subsets' lists name or their folders hold."""
    folder = root / split
    if (folder / FILE_LIST).is_file():
        paths = _listed(root, folder / FILE_LIST)
    else:
        paths: list[Path] = []
        for subset in (folder / name for name in MIT_SUBSETS):
            listing = subset / FILE_LIST
            paths += _listed(root, listing) if listing.is_file() else _pictures(subset)
    return tuple(
        ImageFile(
            name=path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode(),
            path=path,
        )
        for path in dict.fromkeys(paths)
    )


def _pictures(subset: Path) -> list[Path]:
    """``NNN/NNNNNN.png``, in order."""
    found = (path for path in subset.glob("*/*.png") if not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _listed(root: Path, listing: Path) -> list[Path]:
    """The files that a list names relative to its own folder or, as published, to the root.

    One that is not there, or not below the root, is named in the log and left out.
    """
    found: list[Path] = []
    missing = 0
    # Names of files may be any bytes.
    for line in listing.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines():
        name = PurePath(line.strip())
        if not name.parts:
            continue
        inside = not name.is_absolute() and ".." not in name.parts
        folders = dict.fromkeys((listing.parent, root / listing.relative_to(root).parts[0], root))
        path = next((at / name for at in folders if inside and _is_file(at / name)), None)
        if path is not None:
            found.append(path)
            continue
        missing += 1
        if missing <= MOST_NAMED:
            log.warning(
                "skipped: %s lists %s, which is not there", listing, ascii(line.strip()[:200])
            )
    if missing:
        log.warning("%d of %d files in %s are not there", missing, missing + len(found), listing)
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False
