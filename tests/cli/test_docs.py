"""What the documentation says about commands is true."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from quantisp.cli.main import app
from quantisp.models import packaged_models

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", *map(str, ROOT.glob("docs/*.md")))
]


def commands_in(page: Path) -> list[list[str]]:
    """Every `quantisp …` line in a page's shell blocks, with continued lines joined."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line[:1] == ["quantisp"]]


def options_of(command: str) -> set[str]:
    """The options that a command's help names."""
    shown = subprocess.run(
        [sys.executable, "-m", "quantisp.cli.main", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "NO_COLOR": "1", "PATH": ""},
    )
    return set(re.findall(r"--[a-z][a-z-]*", shown.stdout))


COMMANDS = [command for page in PAGES for command in commands_in(page)]
NAMES = [command.name for command in app.registered_commands]


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("words", COMMANDS, ids=shlex.join)
def test_a_command_in_the_documentation_exists(words: list[str]):
    assert words[1] in NAMES
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= options_of(words[1])


@pytest.mark.parametrize("name", NAMES)
def test_help_has_an_example_that_fits(name: str):
    shown = subprocess.run(
        [sys.executable, "-m", "quantisp.cli.main", name, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "NO_COLOR": "1", "PATH": ""},
    ).stdout
    example = re.search(r"Example: (quantisp .*?)(?:│|\n|$)", shown)
    assert example is not None
    words = shlex.split(example[1])
    assert words[1] == name
    assert {word for word in words if word.startswith("--")} <= options_of(name)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"], ids=str)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_names_a_model_that_is_packaged():
    named = re.findall(r'load_model\("([^"]+)"\)', (ROOT / "README.md").read_text())
    assert named
    assert set(named) <= set(packaged_models())


def test_the_example_runs():
    ran = subprocess.run(
        [sys.executable, ROOT / "examples" / "own_network.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith("float: 30.")
    drops = [float(line.split()[2]) for line in ran.stdout.splitlines()[1:]]
    assert drops == sorted(drops, reverse=True)
