"""Pictures in pairs: what a network gets, and what it should give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantisp.data.images import find_images
from quantisp.errors import ImageError

__all__ = ["PairFiles", "find_pairs"]


@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """Two pictures on disk, and the name that stands for both in results."""

    name: str
    input_path: Path
    target_path: Path


def find_pairs(inputs: str | Path, targets: str | Path) -> tuple[PairFiles, ...]:
    """Match the pictures of two folders by their paths below them, whatever their file formats.

    Args:
        inputs: the folder of what the network gets.
        targets: the folder of what it should give.

    Returns:
        In the order of the inputs' names.
    Raises:
        ImageError: a folder is missing or empty, or a picture has no partner or two.
    """
    found = {path: _by_name(Path(path)) for path in (inputs, targets)}
    for folder, other in ((inputs, targets), (targets, inputs)):
        alone = sorted(set(found[folder]) - set(found[other]))
        if alone:
            more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
            raise ImageError(
                f"expected a picture of the same name in --inputs and --targets, {alone[0]!r}"
                f"{more} in {folder} has none in {other}: add its partner, or remove it"
            )
    return tuple(
        PairFiles(name=name, input_path=path, target_path=found[targets][name])
        for name, path in found[inputs].items()
    )


def _by_name(folder: Path) -> dict[str, Path]:
    folder = folder.expanduser()
    if not folder.is_dir():
        raise ImageError(
            f"expected a folder of pictures at {folder}, there is none: correct --inputs, --targets"
        )
    named: dict[str, Path] = {}
    for file in find_images([folder]):
        name = file.path.relative_to(folder).with_suffix("").as_posix()
        name = name.encode("utf-8", "backslashreplace").decode()
        if name in named:
            raise ImageError(
                f"expected one picture of a name, {named[name]} and {file.path} differ only in "
                "their suffix: remove one"
            )
        named[name] = file.path
    return named
