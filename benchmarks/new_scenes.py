"""Does the captioner only repeat scenes that it has seen? `python -m benchmarks.new_scenes CAPTIONS.csv ...`.

CAPTIONS.csv: captions of the drawn world's test pictures by several trainings, as `clipxgpt evaluate` saves them. The
pictures are told apart by whether another picture of the same scene was in the pretraining of CLIP and GPT-2, or among
the captioner's own training pictures. Counted is how many captions of each kind have every fact right. Results: --out.
"""

import argparse
import shlex
import sys
from pathlib import Path

from helpers.data.dataset import open_drawn_world
from helpers.data.scene_captions import is_right
from helpers.evaluation.score_file import read_written
from helpers.pretraining.data import pretraining_scenes
from helpers.runtime.files import write_json


def main() -> None:
    """Count, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("written", nargs="+", type=Path, metavar="CAPTIONS.csv")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    data = open_drawn_world()
    seen = {data.facts[name] for name in data.image_names("train")}
    before, names = pretraining_scenes(), data.image_names("test")
    kinds = {
        "all": names,
        "in the pretraining": [name for name in names if data.facts[name] in before],
        "not in the training": [name for name in names if data.facts[name] not in seen],
        "in neither": [name for name in names if data.facts[name] not in seen | before],
    }
    written = [read_written(file) for file in chosen.written]
    scenes = {}
    for kind, some in kinds.items():
        right = [sum(is_right(captions[name], data.facts[name]) for name in some) for captions in written]
        scenes[kind] = {"pictures": len(some), "right": right}
        print(f"{kind}: {len(some)} pictures; right {', '.join(map(str, right))}")
    command = shlex.join(["python", "-m", "benchmarks.new_scenes", *sys.argv[1:]])
    write_json(chosen.out, {"command": command, "scenes": scenes})


if __name__ == "__main__":
    main()
