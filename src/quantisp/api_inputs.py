"""What a study or an evaluation looks at: pictures, what is done to them, and in pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.api_captures import are_captures, find_pictures_or_captures, survey_captures
from quantisp.data import (
    CROP_PX,
    SAMPLE,
    CalibrationCrops,
    ImageFile,
    find_images,
    find_pairs,
)
from quantisp.errors import ModelError, SettingError
from quantisp.evaluation import (
    Degradation,
    StudyPicture,
    captured,
    mosaicked,
    of_captures,
    parse_degradation,
    survey,
    survey_pairs,
)
from quantisp.inference import check_network
from quantisp.models import InputSize, LoadedModel
from quantisp.quantization.graph import Graph, pad_inside

__all__ = [
    "Material",
    "Sources",
    "check_graph",
    "example_input",
    "find_degradation",
    "find_material",
    "listed",
    "try_out",
]

Sources = str | Path | Sequence[str | Path]
"""Files, folders or globs, or ``sample``."""

EXAMPLE_PX = 96
# Of a network for raw captures, where nothing else is said: the middle of what it is made for.
RAW_ISO = 800.0
LIGHT = ("linear", "root")

Folder = str | Path | None
OnRead = Callable[[int, int], None] | None


@dataclass(frozen=True, kw_only=True)
class Material:
    """Pictures, and what is done to them before the network restores them.

    Args:
        degradation: what is done.
        pictures: at least one.
        input_size: of a program: the inputs that it was exported for.
    """

    degradation: Degradation
    pictures: tuple[StudyPicture, ...]
    input_size: InputSize | None = None

    @property
    def has_own_inputs(self) -> bool:
        """Whether inputs are pictures of their own."""
        return any(picture.input_path is not None for picture in self.pictures)

    def input_sizes(self) -> set[tuple[int, int]]:
        """Heights and widths of what the network gets, in px."""
        factor = self.degradation.interface.factor
        return {(picture.height // factor, picture.width // factor) for picture in self.pictures}

    def crop_size(self) -> tuple[int, int]:
        """Height and width of crops to calibrate with, which a program may fix, in px."""
        if self.input_size is None:
            return CROP_PX, CROP_PX
        factor = 1 if self.has_own_inputs else self.degradation.interface.factor
        height, width = self.input_size.size_near(CROP_PX // factor)
        return factor * height, factor * width

    def measured(self) -> Mapping[str, str]:
        """The name of the picture behind each digest of 8-bit pixels that is measured on."""
        return {
            digest: picture.name for picture in self.pictures for digest in picture.shown_sha256
        }

    def degraded(self, crops: CalibrationCrops) -> list[Float[Tensor, "n c h w"]]:
        """Network inputs to calibrate with, degraded as the pictures are.

        Raises:
            ModelError: a program was not exported for their size.
        """
        origin = " ".join(crops.sha256)
        inputs = [
            self.degradation.degrade(self.degradation.whole(batch), f"{origin} {number}")
            for number, batch in enumerate(crops.batches)
        ]
        if self.input_size is None:
            return inputs
        # A program may take so many pictures at once, and no more.
        most = self.input_size.largest_batch
        return [self.input_size(part) for x in inputs for part in x.split(min(most, len(x)))]


def find_material(
    found: LoadedModel,
    images: str | Path | Sequence[str | Path] | None,
    *,
    degradation: str | None = None,
    pairs: tuple[Folder, Folder] = (None, None),
    captures: bool = False,
    on_read: OnRead = None,
) -> Material:
    """Find and read the pictures.

    Args:
        found: the network, which may name its CFA.
        images: files, folders, globs, or the word ``sample``; None is ``sample``, or no pictures
            beside ``pairs``.
        degradation: as for ``parse_degradation``; None is the mosaic of the network's CFA.
        pairs: the folders of inputs and targets; both or none.
        captures: raw files will do, too.
        on_read: called with the number of pictures read, and of all.

    Raises:
        ModelError: nothing says what the network undoes.
        SettingError: options that exclude each other, or no such degradation.
        ImageError: an unusable picture.
    """
    inputs, targets = pairs
    if inputs is None and targets is None:
        sources = listed(SAMPLE if images is None else images)
        files = find_pictures_or_captures(sources) if captures else find_images(sources)
        if captures and are_captures(files):
            return _of_captures(files, found, degradation, on_read)
        chosen = find_degradation(found, degradation)
        pictures = survey(files, chosen, on_read)
        return Material(degradation=chosen, pictures=pictures, input_size=found.input_size)
    if inputs is None or targets is None:
        given = "--targets" if inputs is None else "--inputs"
        raise SettingError(f"expected --inputs and --targets, found only {given}: give both")
    beside = "--degradation" if degradation is not None else "--images"
    if degradation is not None or images is not None:
        raise SettingError(
            f"expected --inputs and --targets alone, found {beside} beside them: leave it out"
        )
    chosen, pictures = survey_pairs(find_pairs(inputs, targets), on_read)
    return Material(degradation=chosen, pictures=pictures, input_size=found.input_size)


def _of_captures(
    files: Sequence[ImageFile], found: LoadedModel, degradation: str | None, on_read: OnRead
) -> Material:
    if degradation is not None:
        raise SettingError(
            f"expected no degradation beside raw files, which are inputs themselves, found "
            f"{degradation}: leave it out"
        )
    if found.pattern is None:
        raise ModelError(
            f"expected a network that names its CFA as .pattern for raw files, {found.name} does "
            "not: set it"
        )
    pictures = survey_captures(files, found, found.pattern, on_read)
    simulated = captured(found.pattern, RAW_ISO, found.capture_domain)
    return Material(
        degradation=of_captures(simulated), pictures=pictures, input_size=found.input_size
    )


def example_input(material: Material) -> Float[Tensor, "1 c h w"]:
    """An input of the network that shows every layer something: uniform noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    size = (EXAMPLE_PX, EXAMPLE_PX) if material.input_size is None else min(material.input_sizes())
    return torch.rand(1, material.degradation.interface.channels, *size, generator=generator)


def listed(sources: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    """One or several sources as several."""
    return [sources] if isinstance(sources, str | Path) else sources


def find_degradation(found: LoadedModel, degradation: str | None) -> Degradation:
    """What a network undoes: what is said, or else the mosaic of its CFA, in its domain.

    Raises:
        ModelError: nothing says it.
        SettingError: no such degradation.
    """
    if degradation is not None:
        return parse_degradation(degradation, found.pattern, _light(found))
    if found.pattern is None:
        raise ModelError(
            f"expected a network that names its CFA as .pattern, {found.name} does not: say what "
            "it undoes with --degradation noise:25, downscale:2, mosaic:bayer, or none where its "
            "inputs are pictures; studies also take --inputs and --targets"
        )
    if found.provenance is not None and found.provenance.domain in LIGHT:
        return captured(found.pattern, RAW_ISO, found.provenance.domain)
    return mosaicked(found.pattern)


def try_out(network: nn.Module, device: torch.device, material: Material) -> None:
    """Try a network out on the sizes that it will meet.

    Raises:
        ModelError: it cannot take one of them, or gives another size than it should.
    """
    exact = material.input_size is not None
    interface = material.degradation.interface
    check_network(network, device, interface, material.input_sizes(), exact=exact)


def check_graph(graph: Graph | None, network: nn.Module, material: Material) -> None:
    """Refuse pictures that a captured network does not run at.

    Args:
        graph: of the network; None is one that runs as it is.
        network: which may pad its inputs.
        material: the pictures.

    Raises:
        ModelError: the graph runs at one other size only.
    """
    if graph is None or graph.size is None:
        return
    height, width = graph.size
    for size in sorted(material.input_sizes()):
        probe = torch.empty(1, material.degradation.interface.channels, *size)
        if tuple(pad_inside(network, probe).shape[2:]) != graph.size:
            raise ModelError(
                f"expected inputs of {height}x{width} px for activations in integers, for the "
                f"network's own code, or a program's, fixes one of the two, found {size[0]}x"
                f"{size[1]}: choose other pictures, or let it take any height and width"
            )


def _light(found: LoadedModel) -> str:
    """The domain in which a network gets raw mosaics: linear, unless it was trained on another."""
    trained_on = None if found.provenance is None else found.provenance.domain
    return trained_on if trained_on in LIGHT else LIGHT[0]
