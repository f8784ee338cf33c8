"""Does a CLIP flatter the captioner that was trained on its embeddings? `python -m benchmarks.judges --eyes ...`

--eyes NAME JUDGES RUNS, once per image encoder: the CLIPs that see by it, and the runs of captioners trained on its
embeddings, both with commas between them ("-" for no run). Each captioner writes greedy captions of the pictures of
--split. Every judge compares each caption with the picture's references: `preferred` is how often it finds that the
caption fits better, 0.5 if as often as not. It has no unit, so judges can be compared. `own_minus_other` is how much
more often the judges with the captioner's own eyes do so than the others. With captioners of one encoder that may be a
judge's taste in wording as well as flattery; over captioners of either encoder it is flattery, if it is above 0. On the
drawn world the same is counted among captions that state something false. Intervals: 95 %, bootstrap over pictures.
Results: --out.
"""

import argparse
import json
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from helpers.data.build_cache import build_cache
from helpers.data.dataset import Data, open_data
from helpers.data.embedding_cache import EmbeddingCache
from helpers.data.scene_captions import is_right
from helpers.evaluation.bootstrap import Score
from helpers.evaluation.clipscore import WEIGHT, ClipJudge
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


def compared(own: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Return how often own and other judges prefer the captions, and the paired difference; both are float [N]."""
    mine, theirs = Score.mean(own), Score.mean(other)
    difference = {name: value if isinstance(value, str) else np.round(value, 4).tolist()
                  for name, value in mine.minus(theirs).items()}  # fmt: skip
    return {"own": numbers(mine), "other": numbers(theirs), "own_minus_other": difference}


def _found(views: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    found = compared(np.mean(views["own"], axis=0), np.mean(views["other"], axis=0))
    if views["own of false"]:
        own, other = (np.concatenate(views[f"{side} of false"]) for side in ("own", "other"))
        found["wrong_captions"] = {"captions": len(own)} | compared(own, other)
    return found


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
    views: dict[str, list[np.ndarray]] = {"own": [], "other": [], "own of false": [], "other of false": []}
    for eyes in dict.fromkeys(runs.values()):
        mine = [run for run in written if runs[run] == eyes]
        for side in ("own", "other"):
            judges = [by_judge[key] for key in by_judge if (key[0] == eyes) is (side == "own")]
            by_run = {run: np.mean([judge[run] for judge in judges], axis=0) for run in mine}  # [N] each
            views[side].append(np.mean(list(by_run.values()), axis=0))
            if data.facts:
                truth = [data.facts[name] for name in names]
                false = {run: [not is_right(*pair) for pair in zip(written[run], truth, strict=True)] for run in mine}
                views[f"{side} of false"].append(np.concatenate([by_run[run][false[run]] for run in mine]))
        last = {name: each[-1:] for name, each in views.items()}
        results["captions"][f"of captioners that see by {eyes}"] = _found(last)
    if len(results["captions"]) > 1:  # a judge's taste falls out of the mean, because each judge is once the own one
        results["captions"]["of captioners that see by either"] = _found(views)
    for captions, found in results["captions"].items():
        print(f"{captions}: {json.dumps(found)}")
    chosen.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
