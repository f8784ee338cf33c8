"""The model card of a captioner, and the captioner with its card on the Hugging Face hub."""

from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import UserError
from ..evaluation.scores import GROUPS, INTERVAL
from ..models.writer import CaptionWriter
from ..runtime.files import read_object
from ..runtime.model_folders import captioner_folder
from ..training.run import Run

CARD = """---
library_name: transformers
pipeline_tag: image-to-text
tags: [image-captioning, clip, {language_model}, clipxgpt]
---
# {name}

An image captioner of CLIPxGPT Captioner: the embedding of a frozen image encoder becomes a prefix of {prefix} vectors,
behind which a language model writes the caption.

| part | what it is | parameters |
|---|---|---|
{parts}

## Scores

{scores}

## What it was trained on

{data}

## How to use it

```python
from helpers import CaptionWriter, open_picture

writer = CaptionWriter.load("FOLDER")
print(writer.write(writer.embed([open_picture("photo.jpg")])))
```

On the command line: `clipxgpt predict -C FOLDER photo.jpg`. After `import helpers`, transformers loads it too:
`AutoModel.from_pretrained("{repo}")`, and its `generate` takes `pixel_values` or `embeddings`.

## Limits

It describes what its training photos showed, in their words; of other things it may write nonsense. It guesses, counts
badly and reads no text. It guesses the gender and age of people; `predict --neutral` writes neither man nor woman.

Do not use it

- to say who somebody is, or of which gender, age, origin, health or mood;
- to describe people where nobody checks the caption;
- to decide about people: access, moderation, surveillance, safety;
- as evidence that something is in a picture or is not.
"""


def model_card(folder: str | Path, repo_id: str = "FOLDER") -> str:
    """Return the model card of the captioner in a run's folder or in a folder of its own, in Markdown.

    repo_id: its name on the hub. The scores, with their intervals, are those of metrics.json in the run's folder and
    the folders in it, which `clipxgpt evaluate` makes. Raises UserError if there is no captioner, or a file is broken.
    """
    place, run = captioner_folder(folder), Run(Path(folder))
    captioner = CaptionWriter.load(place).captioner
    config = captioner.config
    parts = {
        f"image encoder, frozen ({config.pooling})": (captioner.clip, config.vision_config.model_type),
        f"mapping module ({config.mapper})": (captioner.mapper, f"{config.prefix_length} vectors"),
        f"language model ({config.text_config.model_type})": (
            captioner.gpt2,
            f"{config.text_config.num_hidden_layers} blocks",
        ),
    }
    return CARD.format(
        name=repo_id.rpartition("/")[2] if repo_id != "FOLDER" else run.folder.resolve().name, repo=repo_id,
        prefix=config.prefix_length, language_model=config.text_config.model_type,
        parts="\n".join(f"| {name} | {what} | {sum(each.numel() for each in module.parameters()):,} |"
                        for name, (module, what) in parts.items()),
        scores=_scores(run.folder), data=_data(run),
    )  # fmt: skip


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Put a captioner, its tokenizer, its image processor and its model card on the hub, and return the address.

    folder: as in `model_card`. repo_id: "user/name". It needs a token: `hf auth login`. Raises UserError if the hub
    refuses it.
    """
    card = model_card(folder, repo_id)
    return CaptionWriter.load(folder).push_to_hub(repo_id, card=card, private=private)


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_object(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is broken ({type(error).__name__}); make it again, or remove it") from error


def _scores(folder: Path) -> str:
    """Return a table for each evaluation in the folder."""
    tables = []
    for file in [folder / "metrics.json", *sorted(folder.glob("*/metrics.json"))]:
        if not file.exists():
            continue
        metrics, rows = _read(file), []
        for heading, names in list(GROUPS.items())[2:]:  # those before say what was scored
            found = [_row(name, metrics.get(key), metrics.get(key + INTERVAL)) for key, name in names.items()
                     if isinstance(metrics.get(key), int | float)]  # fmt: skip
            rows += [f"| *{heading}* | |", *found] if found else []
        place = "" if file.parent == folder else f", {file.parent.name}"
        head = f"| on {metrics.get('images')} held-out pictures, {metrics.get('decoding')}{place} | |\n|---|---|\n"
        tables.append(head + "\n".join(rows))
    if not tables:
        return "Not measured: `clipxgpt evaluate` does that."
    return "\n\n".join(tables) + "\n\nIntervals are 95 % intervals over pictures (bootstrap)."


def _row(name: str, value: float, interval: list[float] | None) -> str:
    between = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"| {name} | {value:.3f}{between} |" if isinstance(value, float) else f"| {name} | {value} |"


def _data(run: Run) -> str:
    """Return what the run's config.json says about its training data."""
    if not run.config_file.exists():
        return "It is not known here: this folder holds a captioner without its run."
    content = _read(run.config_file)
    try:
        data, config = content["data"], Config.from_dict(content["config"])
        amount = f"{data['captions']:,} captions of {data['images']:,} pictures (SHA-256 {data['sha256'][:16]}…)"
    except (LookupError, TypeError, ValueError):  # a captioner's own config.json, or a broken one
        return "It is not known here: this folder holds a captioner without its run."
    began = f"the captioner `{config.start_from}`" if config.start_from else f"`{config.clip}` and `{config.gpt2}`"
    return (
        f"{amount}, {config.epochs} epochs in batches of {config.batch_size}. It began with {began}; what trained "
        f"of the language model: {config.freezing}."
    )
