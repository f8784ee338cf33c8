"""Does it see? Captions of held-out pictures, scored and judged, and what the picture tells the captioner."""

from pathlib import Path
from typing import Any

import pandas as pd

from ..analysis.scene_errors import share_right
from ..data.batches import CaptionBatches
from ..data.embedding_cache import EmbeddingCache
from ..data.scene_captions import Scene
from ..errors import UserError
from ..models.decoding import Decoding
from ..models.writer import CaptionWriter
from ..runtime.files import atomic_path, write_json
from . import controls
from .clipscore import ClipJudge, add_clip_scores
from .controls import picture_information
from .scores import measure


def evaluate(
    writer: CaptionWriter,
    captions: pd.DataFrame,
    cache: EmbeddingCache,
    out: str | Path,
    decoding: Decoding | None = None,
    facts: dict[str, Scene] | None = None,
    control: str | None = None,
    training: pd.DataFrame | None = None,
    judge: ClipJudge | None = None,
    images: str | Path | None = None,
    meteor: bool = False,
) -> dict[str, Any]:
    """Caption every image of `captions` and measure; write captions.csv, metrics.json and by_image.csv into `out`.

    captions: columns image_name and caption, the held-out references. facts: the drawn world's truth, to judge each
    caption right or wrong. control: one of controls.CONTROLS, in place of the pictures' own embeddings. training: the
    captions table of the train split, to see what is copied; for the control "nearest" the cache holds its pictures
    too. judge: a CLIP for CLIPScore, images: the folder of the pictures it looks at. meteor: measure METEOR too, whose
    Java takes half a minute.
    Returns what metrics.json holds. Raises UserError when fewer than two images can be evaluated.
    """
    batches = CaptionBatches(captions, cache, writer.tokenizer, 64, writer.captioner.longest_caption)
    names = batches.image_names
    if len(names) < 2:
        raise UserError(f"only {len(names)} image can be evaluated, but the shuffled control needs at least 2")
    if control == "nearest":
        written = controls.nearest_captions(cache, names, training)
    elif control == "mean":
        written = writer.write(controls.mean(writer.captioner, len(names)), decoding)
    else:
        written = writer.write(controls.shuffled(cache, names) if control else batches.embeddings, decoding)

    by_name = batches.captions.groupby("image_name").caption.apply(list)
    references = [by_name[name] for name in names]
    scores = measure(written, references, () if training is None else training.caption, meteor)
    if judge is not None:
        own = writer.clip().fingerprint()["weights_sha256"]
        scores = add_clip_scores(scores, judge, images, names, written, references, own)
    metrics: dict[str, Any] = {
        "images": len(names),
        "images_without_embedding": len(batches.missing),
        "references": len(batches.captions),
        "embeddings": controls.CONTROLS[control] if control else "true",
        "decoding": str(decoding or Decoding()),
        **scores.as_json(),
        **picture_information(writer.captioner, batches),
    }
    if facts is not None:
        metrics["correct"] = share_right(names, written, facts)
        if control is None:
            other = writer.write(controls.shuffled(cache, names), decoding)
            metrics["correct_shuffled"] = share_right(names, other, facts)
    table = pd.DataFrame({"image_name": names, "caption": written})
    for file, columns in (("captions.csv", table), ("by_image.csv", table.join(scores.by_image()))):
        with atomic_path(Path(out) / file) as partial:
            columns.to_csv(partial, index=False)
    write_json(Path(out) / "metrics.json", metrics)
    return metrics
