"""An export is there whole, or not at all; shapes are known without computing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from activation_kit import noise
from export_kit import NETWORKS, integers, request

from quantisp.errors import ModelError, OutputError, RunError, SettingError
from quantisp.files import write_folder
from quantisp.quantization.export import (
    MARKER,
    WRITERS,
    check_sample_size,
    find_writer,
    input_channels,
    size_step,
    tensor_shapes,
    write_export,
)
from quantisp.quantization.integer import IntegerExecutor


@pytest.mark.unit
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_has_a_writer(name: str):
    assert callable(find_writer(name))


@pytest.mark.unit
def test_another_format_is_refused(tmp_path: Path):
    with pytest.raises(SettingError, match=r"a format among .*found 'tflite'"):
        write_export("tflite", request(integers("chain"), 1, 5, 7), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "step"), [("everything", 2), ("dephasenet", 4), ("chain", 1)])
def test_shapes_without_computing(name: str, step: int):
    network = integers(name)
    assert input_channels(network) == 1
    assert size_step(network, 1) == step
    x = noise(1, 1, 16, 24)
    names = [node.name for node in network.graph.nodes]
    codes = IntegerExecutor(network).run(x, names)
    assert tensor_shapes(network, (1, 1, 16, 24)) == {n: tuple(codes[n].shape) for n in names}
    check_sample_size(network, (1, 1, 16, 24))


def test_a_size_that_the_network_does_not_run_at_is_refused():
    with pytest.raises(ModelError, match="multiples of 4 px"):
        check_sample_size(integers("dephasenet"), (1, 1, 16, 22))
    assert set(NETWORKS) >= {"dephasenet"}


@pytest.mark.unit
def test_a_folder_is_replaced_whole(tmp_path: Path):
    out = tmp_path / "a" / "out"

    def fill(text: str, names: tuple[str, ...]):
        def write(folder: Path) -> str:
            for name in names:
                (folder / name).write_text(text)
            return text

        return write

    assert write_folder(out, MARKER, fill("1", (MARKER, "x"))) == "1"
    assert write_folder(out, MARKER, fill("2", (MARKER, "y"))) == "2"
    assert sorted(path.name for path in out.iterdir()) == [MARKER, "y"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.unit
def test_a_failure_leaves_what_was_there(tmp_path: Path):
    out = tmp_path / "out"

    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RunError("expected this")

    with pytest.raises(RunError):
        write_folder(out, MARKER, fail)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / MARKER).write_text("{}")
    with pytest.raises(RunError):
        write_folder(out, MARKER, fail)
    assert (out / MARKER).read_text() == "{}"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.unit
@pytest.mark.parametrize("what", ["file", "foreign", "below a file"])
def test_the_place_of_something_else_is_refused(tmp_path: Path, what: str):
    out = tmp_path / "out"
    if what == "foreign":
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    else:
        out.write_text("mine")
    place = out / "below" if what == "below a file" else out
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="choose another name"):
        write_export("vectors", request(integers("chain"), 1, 5, 7), place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_an_export_says_what_it_is(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    write_export("vectors", request(integers("chain"), 1, 5, 7), out)
    document = json.loads((out / MARKER).read_text())
    assert (document["format"], document["schema"]) == ("quantisp-export-vectors", 1)
    assert document["sample"] == {"source": "noise", "x": 0, "y": 0, "width": 7, "height": 5}
    assert torch.is_tensor(request(integers("chain"), 1, 5, 7).sample.x)


WRITER = """
import sys, time
from pathlib import Path
from quantisp.files import write_folder
def fill(folder):
    (folder / "half").write_text("")
    print("begun", flush=True)
    time.sleep(600)
write_folder(Path(sys.argv[1]), "m.json", fill)
"""


@pytest.mark.unit
def test_what_a_kill_left_beside_a_folder_is_removed_by_the_next_write(tmp_path: Path):
    out, other = tmp_path / "out", tmp_path / "other"

    def fill(folder: Path) -> None:
        (folder / "m.json").write_text("")

    def hidden() -> list[Path]:
        return [path for path in tmp_path.iterdir() if path.name.startswith(".quantisp-")]

    command = [sys.executable, "-c", WRITER, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"begun\n"
            (lives,) = hidden()
            write_folder(out, "m.json", fill)
            # Not that of a process that lives, or of another folder.
            assert hidden() == [lives]
        finally:
            writer.kill()
    write_folder(other, "m.json", fill)
    assert hidden() == [lives]
    write_folder(out, "m.json", fill)
    assert hidden() == []
