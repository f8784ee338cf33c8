"""The options that several commands share, those that come from the config, and how a command's help looks."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..config import FREE, Config
from ..errors import UserError
from ..presets import PRESETS, preset
from ..runtime.files import home
from ..runtime.model_folders import captioner_design, read_run_config


def choose(names: Any) -> str:
    """Return how the help shows the values that an option takes: [tiny|photo|small|large]."""
    return f"[{'|'.join(names)}]"


def whole(text: str) -> int:
    """Parse an option's whole number."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number") from None


def decimal(text: str) -> float:
    """Parse an option's number."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None


IMAGES = typer.Option("--images", metavar="DIR", help="Folder of the pictures.", rich_help_panel="Photos")
CAPTIONS = typer.Option(
    "--captions", metavar="FILE", rich_help_panel="Photos",
    help="Captions file of Flickr8k, Flickr30k, COCO or Karpathy, a CSV with the columns image and caption, JSON "
    "lines, Parquet, or a folder with a .txt beside each picture (docs/formats.md).",
)  # fmt: skip
SPLITS = typer.Option(
    "--splits", metavar="FILE", rich_help_panel="Photos",
    help="CSV with the columns image_name and split, Karpathy's dataset_flickr30k.json or Flickr8k's lists. By "
    "default the captions file's own column, or else a hash of each picture's name: 80 % train, 10 % val, 10 % test.",
)  # fmt: skip
READING = {  # how photos are read, by the names of the arguments of `open_data`
    "image_column": (str | None, None, typer.Option(
        "--image-column", metavar="NAME", rich_help_panel="Photos",
        help="Column with the pictures' names, if the captions file has two that may be meant.",
    )),
    "caption_column": (str | None, None, typer.Option(
        "--caption-column", metavar="NAME", rich_help_panel="Photos", help="Column with the captions, likewise."
    )),
    "follow_links": (bool, False, typer.Option(
        "--follow-links", rich_help_panel="Photos",
        help="Use pictures that are links to a place outside of their folder.",
    )),
}  # fmt: skip
FOLLOW_LINKS = READING["follow_links"][-1]
CACHE = typer.Option("--cache", metavar="DIR", rich_help_panel="Photos", help="Embeddings to use, or to make there.")
CAPTIONER = typer.Option("--captioner", "-C", metavar="DIR", help="Folder of a run or of a captioner, or photo.")
CHOICE = "How captions are chosen"
BEAMS = typer.Option(
    "--beams", metavar="N", parser=whole, rich_help_panel=CHOICE,
    help="Captions that a beam search follows at a time; 1 is no search.",
)  # fmt: skip
GUIDANCE = typer.Option(
    "--guidance", metavar="G", parser=decimal, rich_help_panel=CHOICE,
    help="Above 1, captions say more about their own picture; 1 is off.",
)  # fmt: skip
NEUTRAL = typer.Option(
    "--neutral", rich_help_panel=CHOICE,
    help="Write person for man and woman, child for boy and girl, their for his and her (docs/scores.md).",
)  # fmt: skip
PEOPLE = typer.Option(
    "--people", help="Measure the genders and ages that captions name, and the people and objects that they invent."
)
CLIP = typer.Option("--clip", metavar="NAME_OR_DIR", help="Measure CLIPScore by this CLIP: hub name, folder, or tiny.")

METAVARS = {"clip": "NAME_OR_DIR", "gpt2": "NAME_OR_DIR", "start_from": "DIR", "text": "FILE"}
PresetName = Annotated[
    str, typer.Option("--preset", metavar=choose(PRESETS), help="Values to start from; the options below change them.")
]


class Command(TyperCommand):
    """A command whose help shows its options in their groups."""

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            group = getattr(parameter, "rich_help_panel", None) or f"{parameter.param_type_name.capitalize()}s"
            if record := parameter.get_help_record(ctx):
                named = (parameter.metavar, record[1]) if parameter.param_type_name == "argument" else record
                groups.setdefault(group, []).append(named)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def add_command(app: typer.Typer, function: Callable[..., None]) -> None:
    """Make `function` a command of `app`; its docstring is the help, and what follows "Examples:" comes last there.

    A path that begins with `~` lies in the home folder, also in --out=~/run, which no shell expands.
    """
    text, _, examples = inspect.getdoc(function).partition("\n\nExamples:\n")

    @functools.wraps(function)
    def at_home(**values: Any) -> None:
        function(**{name: home(value) if isinstance(value, Path) else value for name, value in values.items()})

    app.command(function.__name__, cls=Command, help=text, epilog=f"\b\nExamples:\n{examples}")(at_home)


def with_config(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes **values an option for each field of the config; None stands for one not given."""
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    more = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(each))
        for each in fields(Config)
    ]
    function.__signature__ = signature.replace(parameters=[*own, *more])
    return function


def with_reading(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes a dict `reading` an option for each of its entries, in the place of `reading`."""
    signature, parameters = inspect.signature(function), []
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
        for name, (kind, default, option) in READING.items()
    ]
    for each in signature.parameters.values():
        parameters += more if each.name == "reading" else [each]

    @functools.wraps(function)
    def read_as_said(**values: Any) -> None:
        function(reading={name: values.pop(name) for name in READING}, **values)

    read_as_said.__signature__ = signature.replace(parameters=parameters)
    return read_as_said


def chosen_config(preset_name: str, values: dict[str, Any]) -> Config:
    """Return the preset with the values that were given, and the design of the captioner it starts from, if any.

    Raises UserError on a wrong value, and on another design than that captioner's.
    """
    given = {name: value for name, value in values.items() if value is not None}
    design = captioner_design(given["start_from"], given) if given.get("start_from") else {}
    return preset(preset_name).with_values(**given | design)


def resumed_config(
    run: Path, preset_name: str, values: dict[str, Any], *, say: Callable[[str], object] | None = None
) -> Config:
    """Return the config of the run, or the chosen one if no run is there.

    say: gets a line if the run's values are others than those of the preset. Raises UserError if a value that was given
    is not the run's.
    """
    chosen, found = chosen_config(preset_name, values), read_run_config(run)
    if found is None:
        return chosen
    own = Config.from_dict(found["config"])
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        if name not in FREE and getattr(own, name) != value:
            raise UserError(f"{run} holds a run with {name} {getattr(own, name)!r}, here it is {value!r}: a run goes "
                            "on with its own config; use that value, or name another folder")  # fmt: skip
    others = [
        f"{name} {value!r}" for name, value in own.to_dict().items()
        if name not in FREE and getattr(chosen, name) != value
    ]  # fmt: skip
    if others and say:
        say(f"{run} goes on with its own config, which differs from this command's in {', '.join(others)}")
    return own.with_values(**{name: value for name, value in given.items() if name in FREE})


def _annotation(each: Field) -> Any:
    name, choices = f"--{each.name.replace('_', '-')}", each.metadata["rule"].get("choices")
    return Annotated[each.type | None, typer.Option(
        f"{name}/--no-{name[2:]}" if each.type is bool else name,
        parser={int: whole, float: decimal}.get(each.type),
        metavar=choose(choices) if choices else METAVARS.get(each.name, each.type.__name__.upper()),
        help=f"{each.metadata['help']} [{_defaults(each.name)}]",
        rich_help_panel=each.metadata["group"],
        show_default=False,
    )]  # fmt: skip


def _defaults(name: str) -> str:
    """Return the presets' values of a field: "default: 0.01", or "tiny 3, small 150, large 150" if they differ."""
    values = {preset: _as_text(getattr(config, name)) for preset, config in PRESETS.items()}
    if len(set(values.values())) == 1:
        return f"default: {values.popitem()[1]}"
    return ", ".join(f"{preset} {value}" for preset, value in values.items())


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value) or "none"
