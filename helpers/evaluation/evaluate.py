"""Does it see? Captions of held-out pictures, scored, and what the picture tells the captioner."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..analysis.scene_errors import share_right
from ..config import FREE, Config
from ..data.batches import CaptionBatches
from ..data.changes import picture_hashes
from ..data.embedding_cache import EmbeddingCache, differences
from ..data.scene_captions import Scene, is_right
from ..errors import UserError
from ..models.decoding import Decoding
from ..models.loading import load_gpt2
from ..models.writer import CaptionWriter
from ..runtime.files import atomic_path, write_json
from ..runtime.texts import defused
from . import controls
from .bootstrap import Score
from .clipscore import ClipJudge, add_clip_scores
from .people import add_people_scores
from .scores import INTERVAL, measure

PICTURES = "pictures.json"  # the file that says where the pictures lie, and what people wrote about them
BATCH = 64  # captions whose likelihood is computed at a time
TWICE = 0.01  # share of held-out pictures that may be trained on, because collections hold some twice
MEAN = "the captioner behind the mean embedding"
LEARNED = {"True": f"{MEAN}, where it learned captions without a picture", "False": f"{MEAN}, where it learned nothing"}
NOT_KNOWN = f"{MEAN} (whether it learned captions without a picture there is not known)"


def check_encoders(captioners: Sequence[str | Path]) -> None:
    """Raise UserError unless these captioners see by one encoder, and can share the embeddings of the pictures."""
    if not captioners[1:]:
        return
    first, *others = captioners
    wanted = CaptionWriter.load(first).clip().fingerprint()
    for other in others:
        if parts := differences(CaptionWriter.load(other).clip().fingerprint(), wanted):
            raise UserError(f"{first} and {other} see by different encoders ({', '.join(parts)}): evaluate each by "
                            "itself, with an --out of its own")  # fmt: skip


def evaluate(
    writer: CaptionWriter,
    captions: pd.DataFrame,
    cache: EmbeddingCache,
    *,
    out: str | Path,
    decoding: Decoding | None = None,
    facts: dict[str, Scene] | None = None,
    control: str | None = None,
    config: Config | None = None,
    training: pd.DataFrame | None = None,
    judge: ClipJudge | None = None,
    images: str | Path | None = None,
    meteor: bool = False,
    people: bool = False,
) -> dict[str, Any]:
    """Caption every image of `captions` and measure; save captions.csv, metrics.json, by_image.csv and pictures.json.

    captions: the table of held-out references. cache: their embeddings; images without one are counted and left out.
    facts: the drawn world's truth by image, to judge each caption right or wrong. control: one of CONTROLS, to take
    the place of the pictures' own embeddings. config: that of the captioner's training, if it is known; what the
    picture tells is then measured against the language model alone too (`picture_information`). training: the captions
    table of the train split, to see what is copied; the control "nearest" needs it, and its pictures in the cache.
    judge: a CLIP for CLIPScore, which looks at the pictures in the folder `images`. meteor: measure METEOR too, whose
    Java takes half a minute. people: measure the people and objects that the captions name, too.
    Returns what metrics.json holds. Raises UserError on an unknown control, if "nearest" has no `training`, if the
    judge has no `images`, if fewer than two images can be evaluated, and if the captioner was trained on images whose
    split is not "train"; nothing is saved then. A few of these are named instead: collections hold some pictures twice.
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
    seen = _trained_on(writer, batches.captions, cache)
    if control == "nearest":
        written = controls.nearest_captions(cache, names, training)
    elif control == "mean":
        written = writer.write(controls.mean(writer.captioner, len(names)), decoding)
    else:
        written = writer.write(controls.shuffled(cache, names) if control else batches.embeddings, decoding)

    information, unknown = _picture_information(writer, batches, config)
    by_name = batches.captions.groupby("image_name").caption.apply(list)
    references = [by_name[name] for name in names]
    scores = measure(written, references, training=() if training is None else training.caption, meteor=meteor)
    if judge is not None:
        own = writer.clip().rounded_sha256
        scores = add_clip_scores(
            scores, judge, images=images, names=names, written=written, references=references, own=own
        )
    if people:
        scores = add_people_scores(scores, written=written, references=references)
    metrics: dict[str, Any] = {
        "images": len(names),
        "images_without_embedding": len(batches.missing),
        "references": len(batches.captions),
        "embeddings": controls.CONTROLS[control] if control else "true",
        "decoding": str(decoding or Decoding()),
        **scores.as_json(),
        **information,
        **({"trained_on": seen} if seen else {}),
    }
    metrics["not_measured"] |= unknown
    if facts is not None:
        right = Score.mean(
            np.array([is_right(*pair) for pair in zip(written, map(facts.get, names), strict=True)], dtype=float)
        )
        metrics |= {"correct": right.value, f"correct{INTERVAL}": list(right.interval)}
        if control is None:
            other = writer.write(controls.shuffled(cache, names), decoding)
            metrics["correct_shuffled"] = share_right(names, other, facts)
    table = pd.DataFrame({"image_name": list(map(defused, names)), "caption": list(map(defused, written))})
    for file, columns in (("captions.csv", table), ("by_image.csv", table.join(scores.by_image()))):
        with atomic_path(Path(out) / file) as partial:
            columns.to_csv(partial, index=False)
    write_json(Path(out) / "metrics.json", metrics)
    folder = None if images is None else str(Path(images).resolve())
    write_json(Path(out) / PICTURES, {"images": folder, "references": dict(zip(names, references, strict=True))})
    return metrics


def other_recipe(configs: Mapping[str, Config | None]) -> str | None:
    """Return in words why these captioners may not be trainings of one recipe, or None if only the seed differs.

    configs: by captioner that of its training, None if it is not known.
    """
    if unknown := [captioner for captioner, config in configs.items() if config is None]:
        return f"the config of {unknown[0]}'s training is not known"
    (first, recipe), *others = ((captioner, config.to_dict()) for captioner, config in configs.items())
    for captioner, found in others:
        for name in (name for name in recipe if name not in (*FREE, "seed")):
            if found[name] != recipe[name]:
                return f"{name} is {recipe[name]!r} in {first}, but {found[name]!r} in {captioner}"
    return None


def over_trainings(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return how the scores of several trainings of one recipe, at least two, spread over the trainings.

    metrics: by captioner what `evaluate` returns. Keys: captioners, and scores by name, each with mean, of_each (one
    value per captioner), over_trainings (the 95 % interval of the mean by Student's t) and first_over_pictures (the
    first captioner's 95 % interval over pictures, if it has one).
    """
    first, *others = metrics.values()
    scores = {}
    for name, value in first.items():
        if all(isinstance(each.get(name), float) for each in metrics.values()):
            values = [value, *(other[name] for other in others)]
            error = stats.sem(values)  # 0 if all are equal, and then the interval is one point
            spread = stats.t.interval(0.95, len(others), loc=np.mean(values), scale=error) if error else (value, value)
            scores[name] = {"mean": float(np.mean(values)), "over_trainings": [float(end) for end in spread],
                            "of_each": values}  # fmt: skip
            if name + INTERVAL in first:
                scores[name]["first_over_pictures"] = first[name + INTERVAL]
    return {"captioners": list(metrics), "scores": scores}


def _trained_on(writer: CaptionWriter, captions: pd.DataFrame, cache: EmbeddingCache) -> list[str]:
    """Return the held-out images that the captioner was trained on, be it under other names: a few, or a UserError."""
    held_out = captions[captions.split != "train"] if "split" in captions else captions
    hashes = picture_hashes(cache, held_out.image_name.unique())
    seen = [name for name, sha256 in hashes.items() if sha256 in writer.trained_on]
    if len(seen) > TWICE * len(hashes):
        raise UserError(
            f"the captioner was trained on {len(seen)} of these {len(hashes)} held-out pictures, such as {seen[0]}: "
            "give the --splits of its training, or leave these pictures out"
        )
    return seen


def _picture_information(
    writer: CaptionWriter, batches: CaptionBatches, config: Config | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return `picture_information` with its baseline in words, and {name: reason} of what could not be measured."""
    found, reason = {}, "the config of the captioner's training is not known"
    if config is not None:
        try:
            gpt2, _ = load_gpt2(config.language_model)
            found = controls.picture_information(writer.captioner, batches, language_model=gpt2)
        except UserError as error:  # it is not on this machine, or another one has its name now
            reason = str(error)
    unknown = {} if found else {"nats_per_token_language_model": reason}
    found = found or controls.picture_information(writer.captioner, batches)
    if found["without_picture"] == "language_model":
        found["without_picture"] = f"the language model alone ({config.language_model}, before the training)"
    else:
        learned = writer.captioner.config.learned_without_picture
        if learned is None and config is not None:  # a captioner of before this was recorded
            learned = config.text_share > 0 or (None if config.start_from else False)
        found["without_picture"] = LEARNED.get(str(learned), NOT_KNOWN)
    return found, unknown
