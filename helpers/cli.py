"""The command line: `clipxgpt COMMAND`, or `python -m helpers COMMAND` in a clone.

The commands themselves are in `commands/`; each checks what it was given and calls the helper that does the work.
"""

import itertools
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from .commands.data import draw, embed, neutralize
from .commands.export import export, page
from .commands.messages import complain
from .commands.models import convert, pretrain
from .commands.options import add_command
from .commands.predict import predict
from .commands.scores import evaluate, report, score
from .commands.training import ablate, notebooks, train
from .errors import UserError
from .runtime.streams import lasting_streams

COMMANDS = (draw, pretrain, convert, embed, neutralize, train, predict, evaluate, score, ablate, report, export, page,
            notebooks)  # fmt: skip
UsageError = typer.BadParameter.__base__  # click's, of which newer versions of typer carry a copy
EXAMPLES = """\b
Examples:
  clipxgpt train --preset tiny --out runs/tiny
  clipxgpt predict -C runs/tiny data/drawn/flickr30k_images/scene-00000.png

COMMAND --help shows the options of a command and more examples."""

app = typer.Typer(rich_markup_mode=None, add_completion=False, context_settings={"max_content_width": 100})
for command in COMMANDS:
    add_command(app, command)


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            number = version("clipxgpt-captioner")
        except PackageNotFoundError:
            number = "(a clone that is not installed)"
        print(f"clipxgpt {number}")
        raise typer.Exit


@app.callback(epilog=EXAMPLES)
def clipxgpt(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Caption pictures with a frozen CLIP and a partially frozen GPT-2, connected by a small mapping module."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. A mistake of the user ends in one line on stderr and exit status 2, Ctrl-C in 130.

    A command goes on with its work if nobody reads its output any more; one that only prints ends in 141.
    """
    if os.environ.get("RANK", "0") != "0":  # one of torchrun's processes speaks for all, unless something goes wrong
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_streams():
        _run(arguments)


def _run(arguments: list[str]) -> None:
    try:
        _refuse_empty(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = lambda warning, *_where, **_also: complain(warning)
            root = get_command(app)
            with root.make_context("clipxgpt", list(arguments or ["--help"]), obj=arguments) as context:
                root.invoke(context)
            sys.stdout.flush()
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except UsageError as error:
        sys.exit(complain(_in_words(error)))
    except UserError as error:
        sys.exit(complain(error))
    except BrokenPipeError as error:
        complain(f"{error.filename or 'the output'} is not read to its end, so this ends here")
        sys.exit(141)  # as a shell says of a process that SIGPIPE has ended
    except OSError as error:  # a full disk, a folder that may not be written to
        reason = f"{error.filename or 'writing'}: {error.strerror or error}"
        sys.exit(complain(f"{reason}; check the path, whether you may write there, and the room on its disk"))
    except KeyboardInterrupt as interruption:
        complain(f"interrupted; {str(interruption) or 'run the same command again to go on'}")
        sys.exit(130)


def _refuse_empty(arguments: list[str]) -> None:
    """Raise UserError on an empty argument: as a path it would be the folder that the user is in."""
    for before, argument in itertools.pairwise(["clipxgpt", *arguments]):
        option = argument if argument.startswith("--") and argument.endswith("=") else before
        if not argument or option is argument:
            raise UserError(f"what follows {option} is empty, as an unset variable of the shell is: give a value, or "
                            "leave it out")  # fmt: skip


def _in_words(error: UsageError) -> str:
    """Return what is wrong with the arguments, the option that may be meant, and where to look."""
    close = getattr(error, "possibilities", None)  # of an unknown option, the closest first
    said = f"{error.message}. Did you mean {close[0]}?" if close else error.format_message()
    return f"{said} (see {error.ctx.command_path if error.ctx else 'clipxgpt'} --help)"
