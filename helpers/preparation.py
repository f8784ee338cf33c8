"""What a training needs before its first step: Accelerate, batches, the optimizer's groups, the data's identity."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from .accelerator import Choice
from .batches import CaptionBatches
from .captioner import Captioner
from .config import Config
from .embeddings import EmbeddingCache
from .errors import UserError
from .writer import CaptionWriter


def make_accelerator(choice: Choice, tracker: str | None, folder: str | Path) -> Accelerator:
    """Accelerate on that device in that precision. Raises UserError on a tracker it does not know or find installed.

    tracker: the name of one of Accelerate's trackers, which then writes to `folder` where it writes files.
    """
    if tracker is not None and tracker not in map(str, get_available_trackers()):
        if tracker not in LOGGER_TYPE_TO_CLASS:
            raise UserError(f"tracker is {tracker!r}, but must be one of {', '.join(LOGGER_TYPE_TO_CLASS)}")
        raise UserError(f"tracker is {tracker!r}, which is not installed: pip install {tracker.replace('_', '-')}")
    AcceleratorState._reset_state()  # or a second run in this process could not compute in another precision
    return Accelerator(
        cpu=choice.device.type == "cpu",
        mixed_precision="no" if choice.precision == "fp32" else choice.precision,
        log_with=tracker,
        project_dir=folder,
    )


def split_batches(
    config: Config,
    captions: pd.DataFrame,
    split: str,
    embeddings: EmbeddingCache,
    writer: CaptionWriter,
    say: Callable[[str], None],
) -> CaptionBatches:
    """The batches of one split; what is left out of them is counted and named."""
    max_tokens = min(config.max_caption_tokens, writer.captioner.longest_caption)
    rows = captions[captions.split == split]
    if rows.empty:
        raise UserError(
            f"no caption is in split {split!r}, but training needs some in train and in val: give more pictures, or "
            "say by a splits file which image is in which split"
        )
    parts = 1 if split == "train" else config.micro_batches  # what does not learn may come in batches of any size
    batch_size = -(-config.batch_size // parts)
    batches = CaptionBatches(rows, embeddings, writer.tokenizer, batch_size, max_tokens, config.seed)
    if batches.missing:
        say(f"{split}: {len(batches.missing)} images have no embedding and are left out, such as {batches.missing[0]}")
    if batches.cut:
        say(f"{split}: {len(batches.cut)} captions are cut at {max_tokens} tokens, such as {batches.cut[0][:60]!r}")
    return batches


def parameter_groups(captioner: Captioner, config: Config) -> list[dict[str, Any]]:
    """AdamW's groups: mapping module and GPT-2 each with its peak learning rate, matrices alone with weight decay."""
    groups = []
    for module, rate, peak in ((captioner.mapper, "lr", config.mapper_lr), (captioner.gpt2, "gpt2_lr", config.gpt2_lr)):
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for decay, chosen in (
            (config.weight_decay, [parameter for parameter in trained if parameter.ndim >= 2]),
            (0.0, [parameter for parameter in trained if parameter.ndim < 2]),
        ):
            # An empty group (a wholly frozen GPT-2) stays, for the history records both learning rates.
            groups.append({"params": chosen, "lr": 0.0, "weight_decay": decay, "peak": peak, "rate": rate})
    return groups


def identity(batches: CaptionBatches, embeddings: EmbeddingCache) -> dict[str, Any]:
    """What tells one training set from another: how much, and a hash of the captions in their order."""
    text = "\n".join(f"{row.image_name}\t{row.caption}" for row in batches.captions.itertuples())
    return {
        "captions": len(batches.captions),
        "images": len(batches.image_names),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "clip_sha256": embeddings.fingerprint["weights_sha256"],
    }
