"""The flags of the commands. Every field of the config is a flag of its own, made from the dataclass."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from .config import POOLINGS, PRESETS, Config
from .errors import UserError

BESIDE = {"defect": str, "train_images": int}  # what an ablation can vary that is no field of the config (trial.py)
GUIDANCE = "above 1 for captions that are more about their own picture (1, which is off)"
SPLITS_HELP = "CSV image_name,split, or Karpathy's dataset_flickr30k.json; without it by a hash of the name"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def build_parser() -> Parser:
    """The parser; `command` in what it returns is the command's name, everything else an argument of its function."""
    parser = Parser(prog="clipxgpt", description="Connect a frozen CLIP to a partially frozen GPT-2.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def add(name: str, text: str) -> Parser:
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False)

    flag = add("draw", "draw a world of small pictures with captions, in Flickr30k's layout").add_argument
    flag("--out", type=Path, required=True, metavar="DIR")
    flag("--images", type=int, default=3000, metavar="N", help="how many pictures (3000)")
    flag("--seed", type=int, default=0, metavar="S", help="which world (0)")

    flag = add("pretrain", "train a small CLIP and a small GPT-2 from scratch").add_argument
    _add_photos(flag)
    flag("--text", type=Path, metavar="FILE", help="more text for GPT-2: lines, or a CSV of captions")
    flag("--recipe", choices=("drawn", "photos"), help="drawn where facts.json lies beside the captions, else photos")
    flag("--out", type=Path, required=True, metavar="DIR", help="clip/ and gpt2/ are written there")

    flag = add("embed", "encode every picture once with a frozen CLIP").add_argument
    _add_photos(flag, splits=False)
    flag("--clip", required=True, metavar="NAME_OR_DIR", help="hub name, folder, or tiny")
    flag("--pooling", choices=POOLINGS, default="pooled", help="one vector a picture, or one a patch too (pooled)")
    flag("--out", type=Path, required=True, metavar="CACHE")
    flag("--part", default="1/1", metavar="2/4", help="embed only this part, on one of several machines (all)")

    command = add("train", "train a captioner, or go on with a run")
    flag = command.add_argument
    flag("--preset", dest="preset_name", choices=tuple(PRESETS), required=True)
    flag("--out", type=Path, required=True, metavar="RUN")
    _add_photos(flag, required=False)
    flag("--cache", type=Path, metavar="CACHE", help="embeddings to use or make (RUN/embeddings)")
    flag("--resume", action="store_true", help="go on from the newest whole checkpoint in RUN")
    flag("--max-hours", type=float, metavar="H", help="save and stop after so many hours")
    flag("--max-steps", type=int, metavar="N", help="save and stop after so many steps of this session")
    flag("--tracker", metavar="NAME", help="tensorboard, wandb or another of Accelerate's trackers, beside history.csv")
    _add_config(command)

    flag = add("predict", "caption pictures").add_argument
    flag("-I", "--image", type=Path, action="append", required=True, help="a picture; may be given again")
    default = Path("runs/tiny/captioner")
    flag("-C", "--captioner", type=Path, default=default, metavar="DIR", help=f"({default})")
    flag("-R", "--result", type=Path, metavar="DIR", help="save the picture with its caption there")
    flag("-T", "--temperature", type=float, default=0.0, help="0 is greedy; above it captions are sampled (0)")
    flag("--top-p", type=float, default=1.0, help="sample from the likeliest tokens up to this probability (1)")
    flag("--beams", type=int, default=1, metavar="N", help="beam search (1)")
    flag("--seed", type=int, default=0, help="of the sampling (0)")
    flag("--guidance", type=float, default=1.0, metavar="G", help=GUIDANCE)

    command = add("evaluate", "caption held-out pictures and measure")
    flag = command.add_argument
    flag("--captioner", type=Path, required=True, metavar="DIR")
    _add_photos(flag)
    flag("--split", default="test", help="which split to evaluate, or several: val,test (test)")
    flag("--out", type=Path, required=True, metavar="DIR")
    flag("--beams", type=int, default=1, metavar="N", help="beam search (1)")
    flag("--guidance", type=float, default=1.0, metavar="G", help=GUIDANCE)
    flag("--clip", metavar="NAME_OR_DIR", help="measure CLIPScore too, by this CLIP: hub name, folder, or tiny")
    flag("--meteor", action="store_true", help="measure METEOR too; its Java takes half a minute")
    control = command.add_mutually_exclusive_group()
    for name, const, text in (
        ("--shuffle-embeddings", "shuffled", "a control: every picture gets another one's embedding"),
        ("--mean-embedding", "mean", "a control: every picture gets the mean embedding of the training pictures"),
        ("--nearest-caption", "nearest", "a control: a caption of the nearest training picture, nothing is written"),
    ):
        control.add_argument(name, dest="control", action="store_const", const=const, help=text)

    flag = add("score", "score a captions file against references").add_argument
    flag("--captions", type=Path, required=True, metavar="FILE", help="CSV image_name,caption, as evaluate writes it")
    flag("--references", type=Path, required=True, metavar="FILE", help="results.csv, or a CSV of two columns")
    flag("--splits", type=Path, metavar="FILE", help=SPLITS_HELP)
    flag("--held-out", action="store_true", help="all pictures of the references are held out: none was trained on")
    flag(
        "--out", type=Path, required=True, metavar="FILE", help="the scores, a JSON; those of each image lie beside it"
    )
    flag("--against", type=Path, metavar="FILE", help="another captions file, to compare by a paired bootstrap")
    flag("--clip", metavar="NAME_OR_DIR", help="measure CLIPScore too, by this CLIP: hub name, folder, or tiny")
    flag("--images", type=Path, metavar="DIR", help="the folder of pictures, for CLIPScore")

    command = add("ablate", "train with one thing changed, over several seeds, on the drawn world or on photos")
    flag = command.add_argument
    beside = " or ".join(BESIDE)
    flag("--vary", action="append", required=True, metavar="FIELD=A,B", help=f"a config field, {beside}; its values")
    flag("--seeds", type=int, default=3, metavar="N", help="runs of each value (3)")
    flag("--out", type=Path, required=True, metavar="FILE", help="the results, a CSV")
    flag("--jobs", type=int, metavar="N", help="runs at a time, one thread each (one a card, else one a CPU core)")
    flag("--preset", dest="preset_name", choices=tuple(PRESETS), default="tiny", help="what is changed (tiny)")
    _add_photos(flag, required=False)
    flag("--cache", type=Path, metavar="CACHE", help="embeddings to use or make (beside the results)")
    _add_config(command)

    flag = add("report", "write one HTML file about a run, to share").add_argument
    flag("run", type=Path, metavar="RUN", help="the folder of a run")
    flag("--out", type=Path, metavar="FILE", help="(RUN/report.html)")
    flag("--images", type=Path, metavar="DIR", help="the folder of the pictures in captions.csv")

    flag = add("notebooks", "execute the notebooks on the drawn world, one after the other").add_argument
    flag("--out", type=Path, default=Path("runs/tiny"), metavar="RUN", help="(runs/tiny)")
    return parser


def read_vary(texts: list[str]) -> dict[str, list[Any]]:
    """`["prefix_length=1,4"]` as `{"prefix_length": [1, 4]}`. Raises UserError on an unknown field or a wrong value."""
    kinds = {field.name: _kind(field) for field in fields(Config)} | BESIDE
    varied = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name == "seed" or name in varied:
            raise UserError(f"--vary {text}: {name} is varied already (the seeds by --seeds); leave this one out")
        if name not in kinds:
            known = f"{', '.join(name for name in kinds if name not in BESIDE)}; beside it stand {', '.join(BESIDE)}"
            raise UserError(f"--vary {text}: {name} is no field of the config; its fields are {known}")
        try:
            varied[name] = [
                _boolean(value) if kinds[name] is bool else kinds[name](value) for value in values.split(",")
            ]
        except ValueError as error:
            raise UserError(f"--vary {text}: the values of {name} are {kinds[name].__name__}s ({error})") from error
    return varied


def _add_photos(flag: Any, required: bool = True, splits: bool = True) -> None:
    flag("--images", type=Path, required=required, metavar="DIR", help="the folder of pictures")
    flag("--captions", type=Path, required=required, metavar="FILE", help="results.csv, or a CSV of two columns")
    if splits:
        flag("--splits", type=Path, metavar="FILE", help=SPLITS_HELP)


def _add_config(command: argparse.ArgumentParser) -> None:
    """A flag for each field of the config; one that is not given is absent from what is parsed."""
    group = command.add_argument_group("config", "fields of the config; the preset's value where not given")
    for field in fields(Config):
        name, kind = f"--{field.name.replace('_', '-')}", _kind(field)
        if kind is bool:
            group.add_argument(name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            group.add_argument(name, type=kind, metavar=kind.__name__.upper(), default=argparse.SUPPRESS)


def _kind(field: Any) -> type:
    return {"int": int, "float": float, "str": str, "bool": bool}[getattr(field.type, "__name__", field.type)]


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"
