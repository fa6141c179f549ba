"""The command line: every command, and what an error looks like."""

from __future__ import annotations

import logging
import sys

import typer

from quantisp.cli.demosaic import demosaic_command
from quantisp.cli.evaluate import evaluate_command
from quantisp.cli.export import export_command
from quantisp.cli.fit import fit_command
from quantisp.cli.info import info_command
from quantisp.cli.quantize import quantize_command
from quantisp.cli.simulate import simulate_command
from quantisp.cli.study import study_command
from quantisp.cli.train import train_command
from quantisp.errors import QuantispError

__all__ = ["app", "main"]

app = typer.Typer(
    name="quantisp",
    help="How many bits does an image-restoration network need?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Typer brings its own copy of click; this is the class of all mistakes on the command line.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


@app.callback()
def _all_commands() -> None:
    """Say how many bits an image-restoration network needs."""


# To add a command: one file in this folder, and one line here.
app.command("study")(study_command)
app.command("evaluate")(evaluate_command)
app.command("demosaic")(demosaic_command)
app.command("quantize")(quantize_command)
app.command("export")(export_command)
app.command("train")(train_command)
app.command("simulate")(simulate_command)
app.command("fit")(fit_command)
app.command("info")(info_command)


def main() -> None:
    """Run a command; end with exit code 0, 1 (it failed) or 2 (bad input)."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        code = app(standalone_mode=False)
    except QuantispError as error:
        _complain(str(error))
        code = error.exit_code
    except OSError as error:
        # What no room foresaw: a name that is too long, a folder that is closed to us.
        used = "the output" if error.filename is None else error.filename
        _complain(f"cannot use {used} ({error.strerror or error}): correct the path")
        code = 2
    except UsageError as error:
        _complain(f"{error.format_message()} See `quantisp --help`.")  # pyright: ignore[reportAttributeAccessIssue]
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        _complain("stopped: a study goes on with the same command, a training with --resume")
        code = 130
    sys.exit(code)


def _complain(message: str) -> None:
    print("quantisp: " + " ".join(message.split()), file=sys.stderr)


if __name__ == "__main__":
    main()
