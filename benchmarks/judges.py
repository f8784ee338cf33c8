"""Does a CLIP flatter the captioner that was trained on its embeddings? `python -m benchmarks.judges --eyes ...`

--eyes NAME JUDGES RUNS, once per image encoder: the CLIPs that see by it, and the runs of captioners trained on its
embeddings, both with commas between them ("-" for no run). Each captioner writes greedy captions of the pictures of
--split. Every judge compares each caption with the picture's references: `preferred` is how often it finds that the
caption fits better, 0.5 if as often as not. It has no unit, so judges can be compared. `own_minus_other` is how much
more often the judges with the captioner's own eyes do so than the others. With captioners of one encoder that may be a
judge's taste in wording as well as flattery. In the mean of captioners of either encoder, each encoder counting as
much, a taste cancels, because each judge is once the own one and once the other. On the drawn world the same is counted
among captions that state something false. Intervals: 95 %, bootstrap over pictures; the captions of one picture stay
together. Verdicts are corrected by Holm for all comparisons of one call. Results: --out.
"""

import argparse
import json
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from helpers.data.build_cache import build_cache
from helpers.data.dataset import Data, open_data
from helpers.data.embedding_cache import EmbeddingCache
from helpers.data.scene_captions import is_right
from helpers.evaluation.bootstrap import RESAMPLES, Score
from helpers.evaluation.clipscore import WEIGHT, ClipJudge
from helpers.experiments.significance import LEVEL, holm
from helpers.models.writer import CaptionWriter


def preferences(fits: torch.Tensor, references: list[torch.Tensor]) -> np.ndarray:
    """Return per picture the share of its references that fit it less well than the caption does, float64 [N].

    fits: the cosine of each caption and its picture, [N]. references: those of its references. A tie counts half.
    """
    return np.array([((fit > known).double() + (fit == known).double() / 2).mean().item()
                     for fit, known in zip(fits, references, strict=True)])  # fmt: skip


@torch.no_grad()
def picture_vectors(judge: ClipJudge, data: Data, names: list[str]) -> torch.Tensor:
    """Return the pictures' unit vectors [N, projection], from the embeddings that `pretrain --vision` left."""
    beside = Path(judge.clip.name).parent / "embeddings"
    if beside.exists():
        pooled = EmbeddingCache.open(beside, judge.clip).rows(names)
        return F.normalize(judge.towers.visual_projection(pooled), dim=1)
    pictures, unread = judge.picture_vectors(data.images, names)
    if unread:
        raise SystemExit(f"pictures that cannot be read: {unread}")
    return pictures


def judged(judge: ClipJudge, data: Data, names: list[str], known: list[list[str]], written: list[list[str]]) -> Any:
    """Return one judge's view of several captioners: for each its `preferences` and the mean CLIPScore."""
    pictures = picture_vectors(judge, data, names)
    flat = iter(judge.text_vectors([text for texts in known for text in texts]))
    references = [torch.stack(list(islice(flat, len(texts)))) @ picture
                  for texts, picture in zip(known, pictures, strict=True)]  # fmt: skip
    fits = [(judge.text_vectors(texts) * pictures).sum(dim=1) for texts in written]
    return [(preferences(each, references), WEIGHT * each.clamp_min(0).mean().item()) for each in fits]


def numbers(score: Score) -> dict[str, Any]:
    return {"preferred": round(score.value, 4), "95_interval": [round(end, 4) for end in score.interval]}


def preferred(views: list[np.ndarray], counted: list[np.ndarray]) -> Score:
    """Return how often captions are preferred, over pictures.

    views: the `preferences` of each captioner, float64 [N] each. counted: bool [N] each, the captions that count.
    """
    counts = np.sum(counted, axis=0)
    sums = np.sum([np.where(some, view, 0) for view, some in zip(views, counted, strict=True)], axis=0)
    with np.errstate(invalid="ignore"):
        return Score.of(np.column_stack([sums, counts]), lambda each: each[:, 0] / each[:, 1], sums / counts)


def sides(by_judge: dict[tuple[str, str], dict[str, np.ndarray]], counted: dict[str, np.ndarray], eyes: str) -> Any:
    """Return how often the judges with these eyes prefer captions, "own", and how often all others do, "other".

    by_judge: by the judge's eyes and name, the `preferences` [N] of each run. counted: bool [N] per run.
    """
    views = {}
    for side in ("own", "other"):
        judges = [seen for key, seen in by_judge.items() if (key[0] == eyes) is (side == "own")]
        means = [np.mean([seen[run] for seen in judges], axis=0) for run in counted]
        views[side] = preferred(means, list(counted.values()))
    return views


def mean_of(scores: list[Score]) -> Score:
    """Return the mean of scores over the same pictures, in which each score counts as much."""
    return Score(
        float(np.mean([score.value for score in scores])),
        np.mean([score.resampled for score in scores], axis=0),
        np.mean([score.per_image for score in scores], axis=0),
    )


def compared(mine: Score, theirs: Score) -> dict[str, Any]:
    """Return how often own and other judges prefer the captions, and the difference with its p, paired by picture."""
    difference = {name: value if isinstance(value, str) else np.round(value, 4).tolist()
                  for name, value in mine.minus(theirs).items()}  # fmt: skip
    apart = mine.resampled - theirs.resampled
    apart = apart[~np.isnan(apart)]  # a resample without any such caption
    difference["p"] = min(1.0, 2 * max(min((apart <= 0).mean(), (apart >= 0).mean()), 1 / RESAMPLES))
    return {"own": numbers(mine), "other": numbers(theirs), "own_minus_other": difference}


def correct_for_all(differences: list[dict[str, Any]]) -> None:
    """Add p_holm to each difference, and take back the verdict of each that is not shown after the correction."""
    corrected = holm(pd.Series([each["p"] for each in differences])).sort_index()
    for difference, p in zip(differences, corrected, strict=True):
        difference["p_holm"] = round(float(p), 4)
        if p >= LEVEL:
            difference["verdict"] = "no difference shown"


def main() -> None:
    """Measure, print, and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eyes", nargs=3, action="append", required=True, metavar=("NAME", "JUDGES", "RUNS"))
    for name in ("images", "captions", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--split", default="test")
    chosen = parser.parse_args()
    data = open_data(chosen.images, chosen.captions, chosen.splits)
    names = data.image_names(chosen.split)
    by_name = data.captions.groupby("image_name").caption.apply(list)
    known = [by_name[name] for name in names]
    runs = {run: eyes for eyes, _, given in chosen.eyes for run in given.split(",") if run != "-"}
    written = {}
    with tempfile.TemporaryDirectory() as folder:
        for run, eyes in runs.items():
            writer = CaptionWriter.load(run)
            cache = build_cache(Path(folder) / eyes, data.images, names, clip=writer.clip())
            written[run] = writer.write(cache.rows(names))

    table, by_judge = [], {}
    for eyes, judges, _ in chosen.eyes:
        for judge in judges.split(","):
            seen = judged(ClipJudge.load(judge), data, names, known, list(written.values()))
            by_judge[eyes, judge] = dict(zip(written, (preferred for preferred, _ in seen), strict=True))
            table += [{"run": run, "eyes": runs[run], "judge": judge, "judges_eyes": eyes, "clipscore": round(fit, 4),
                       **numbers(Score.mean(preferred))}
                      for run, (preferred, fit) in zip(written, seen, strict=True)]  # fmt: skip
    results = {"command": " ".join(["python -m benchmarks.judges", *sys.argv[1:]]), "pictures": len(names),
               "split": chosen.split, "captions": {}, "table": table}  # fmt: skip
    truth = [data.facts[name] for name in names] if data.facts else []
    every = dict.fromkeys(written, np.ones(len(names), dtype=bool))
    false = {run: np.array([not is_right(*pair) for pair in zip(written[run], truth, strict=True)])
             for run in (written if truth else ())}  # fmt: skip
    found = {eyes: {which: sides(by_judge, {run: counted[run] for run in counted if runs[run] == eyes}, eyes)
                    for which, counted in (("all", every), ("false", false))
                    if any(counted[run].any() for run in counted if runs[run] == eyes)}
             for eyes in dict.fromkeys(runs.values())}  # fmt: skip
    if len(found) > 1:
        found["either"] = {which: {side: mean_of([each[which][side] for each in found.values()])
                                   for side in ("own", "other")}
                           for which in ("all", "false") if all(which in each for each in found.values())}  # fmt: skip
    for eyes, views in found.items():
        results["captions"][f"of captioners that see by {eyes}"] = kept = compared(*views["all"].values())
        if "false" in views:
            number = sum(int(false[run].sum()) for run in false if eyes in ("either", runs[run]))
            kept["wrong_captions"] = {"captions": number} | compared(*views["false"].values())
    correct_for_all([each["own_minus_other"] for kept in results["captions"].values()
                     for each in (kept, kept.get("wrong_captions")) if each])  # fmt: skip
    for captions, kept in results["captions"].items():
        print(f"{captions}: {json.dumps(kept)}")
    chosen.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
