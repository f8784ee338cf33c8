"""Does it see? Captions of held-out pictures, scored, and what the picture tells the captioner."""

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
from .scores import measure

PICTURES = "pictures.json"  # the file that says where the pictures lie, and what people wrote about them
BATCH = 64  # captions whose likelihood is computed at a time


def evaluate(
    writer: CaptionWriter,
    captions: pd.DataFrame,
    cache: EmbeddingCache,
    *,
    out: str | Path,
    decoding: Decoding | None = None,
    facts: dict[str, Scene] | None = None,
    control: str | None = None,
    training: pd.DataFrame | None = None,
    judge: ClipJudge | None = None,
    images: str | Path | None = None,
    meteor: bool = False,
) -> dict[str, Any]:
    """Caption every image of `captions` and measure; save captions.csv, metrics.json, by_image.csv and pictures.json.

    captions: the table of held-out references. cache: their embeddings; images without one are counted and left out.
    facts: the drawn world's truth by image, to judge each caption right or wrong. control: one of CONTROLS, to take
    the place of the pictures' own embeddings. training: the captions table of the train split, to see what is copied;
    the control "nearest" needs it, and its pictures in the cache. judge: a CLIP for CLIPScore, which looks at the
    pictures in the folder `images`. meteor: measure METEOR too, whose Java takes half a minute.
    Returns what metrics.json holds. Raises UserError on an unknown control, if "nearest" has no `training`, if the
    judge has no `images`, and if fewer than two images can be evaluated; nothing is saved then.
    """
    if control not in (None, *controls.CONTROLS):
        raise UserError(f"control is {control!r}, but must be one of {', '.join(controls.CONTROLS)}, or None for none")
    if control == "nearest" and training is None:
        raise UserError("the control 'nearest' copies from the training captions: give training, their table")
    if judge is not None and images is None:
        raise UserError("CLIPScore looks at the pictures: give images, the folder that holds them")
    batches = CaptionBatches(
        captions, cache, writer.tokenizer, batch_size=BATCH, max_tokens=writer.captioner.longest_caption
    )
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
    scores = measure(written, references, training=() if training is None else training.caption, meteor=meteor)
    if judge is not None:
        own = writer.clip().fingerprint()["weights_sha256"]
        scores = add_clip_scores(
            scores, judge, images=images, names=names, written=written, references=references, own=own
        )
    metrics: dict[str, Any] = {
        "images": len(names),
        "images_without_embedding": len(batches.missing),
        "references": len(batches.captions),
        "embeddings": controls.CONTROLS[control] if control else "true",
        "decoding": str(decoding or Decoding()),
        **scores.as_json(),
        **controls.picture_information(writer.captioner, batches),
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
    folder = None if images is None else str(Path(images).resolve())
    write_json(Path(out) / PICTURES, {"images": folder, "references": dict(zip(names, references, strict=True))})
    return metrics
