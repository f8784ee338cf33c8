"""Does a CLIP flatter the captioner that was trained on its embeddings? `python -m benchmarks.judges --eyes ...`

--eyes NAME JUDGES RUNS, once per image encoder: the CLIPs that see by it, and the runs of captioners trained on its
embeddings, both with commas between them ("-" for no run). Each captioner writes greedy captions of the pictures of
--split. Every judge compares each caption with the picture's references: `preferred` is how often it finds that the
caption fits better, 0.5 if as often as not. It has no unit, so judges can be compared. `own_minus_other` is how much
more often the judges with the captioner's own eyes do so than the others: flattery, if it is above 0. On the drawn
world the same is counted among captions that state something false. Intervals: 95 %, bootstrap over pictures.
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

from helpers.data.build_cache import build_cache
from helpers.data.dataset import Data, open_data
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


def judged(judge: ClipJudge, data: Data, names: list[str], known: list[list[str]], written: list[list[str]]) -> Any:
    """Return one judge's view of several captioners: for each its `preferences` and the mean CLIPScore."""
    pictures, unread = judge.picture_vectors(data.images, names)
    if unread:
        raise SystemExit(f"pictures that cannot be read: {unread}")
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
    for run in runs:
        writer = CaptionWriter.load(run)
        with tempfile.TemporaryDirectory() as folder:
            written[run] = writer.write(build_cache(folder, data.images, names, clip=writer.clip()).rows(names))

    table, by_judge = [], {}
    for eyes, judges, _ in chosen.eyes:
        for judge in judges.split(","):
            views = judged(ClipJudge.load(judge), data, names, known, list(written.values()))
            by_judge[eyes, judge] = dict(zip(written, (preferred for preferred, _ in views), strict=True))
            table += [{"run": run, "eyes": runs[run], "judge": judge, "judges_eyes": eyes, "clipscore": round(fit, 4),
                       **numbers(Score.mean(preferred))}
                      for run, (preferred, fit) in zip(written, views, strict=True)]  # fmt: skip
    results = {"command": " ".join(["python -m benchmarks.judges", *sys.argv[1:]]), "pictures": len(names),
               "split": chosen.split, "captions": {}, "table": table}  # fmt: skip
    for eyes in dict.fromkeys(runs.values()):
        mine = [run for run in written if runs[run] == eyes]
        sides = [[by_judge[key] for key in by_judge if (key[0] == eyes) is own] for own in (True, False)]
        own, other = (np.mean([judge[run] for judge in side for run in mine], axis=0) for side in sides)
        found = compared(own, other)
        if data.facts:
            wrong = [[not is_right(text, data.facts[name]) for name, text in zip(names, written[run], strict=True)]
                     for run in mine]  # fmt: skip
            views = [np.concatenate([np.mean([judge[run] for judge in side], axis=0)[each]
                                     for run, each in zip(mine, wrong, strict=True)]) for side in sides]  # fmt: skip
            found["wrong_captions"] = {"captions": len(views[0])} | compared(*views)
        results["captions"][f"of captioners that see by {eyes}"] = found
        print(f"captioners that see by {eyes}: {json.dumps(found)}")
    chosen.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
