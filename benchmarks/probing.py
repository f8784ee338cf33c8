"""What can a linear probe read from an embedding, and thanks to whom? `python -m benchmarks.probing`.

The small CLIP in helpers/tiny was pretrained on the drawn world with linear heads that name the very facts that a probe
then reads. So the same probe also reads raw pixels, an untrained encoder of the same shape, encoders of the same recipe
that learned from captions alone, without the facts, and the encoder of photos, which never saw a drawn picture. Probes
are fitted on the training pictures of the drawn world and judged on its validation pictures.

Encoders are trained on the pretraining world of helpers/tiny (drawn if --world is empty) into --out, 3 minutes of CPU
each; those that lie there are reused. Results: notebooks/results/probing.json.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.run import machine
from helpers.analysis.probing import probe_facts
from helpers.captions.read import read_captions
from helpers.captions.splits import split_by_image
from helpers.data.dataset import Data, open_drawn_world
from helpers.data.images import open_picture
from helpers.data.scenes import draw_world
from helpers.encoders.vision import ImageEncoder
from helpers.models.loading import load_encoder
from helpers.models.writer import CaptionWriter
from helpers.pretraining.data import TINY_PAIRS_WORLD
from helpers.pretraining.pretrain import pretrain
from helpers.pretraining.recipe import Recipe
from helpers.pretraining.small_clip import build_clip, build_processor

RESULTS = Path(__file__).parents[1] / "notebooks" / "results" / "probing.json"
AT_A_TIME = 32  # pictures that are embedded together


def untrained(seed: int) -> ImageEncoder:
    """Return an untrained encoder of the small CLIP's shape."""
    recipe = Recipe()
    torch.manual_seed(seed)
    clip = build_clip(recipe, vocabulary=recipe.vocabulary, end_of_text=0)
    return ImageEncoder(clip.vision_model.eval(), build_processor(recipe.image_size), "untrained")


def pretrained(seed: int, fact_weight: float, *, world: Path, out: Path) -> ImageEncoder:
    """Return an encoder of the small CLIP's recipe, pretrained on `world` with that weight of the loss on facts."""
    folder = out / f"facts-{fact_weight:g}-seed-{seed}"
    if not (folder / "report.json").exists():
        draw_world(world, **TINY_PAIRS_WORLD)
        captions = split_by_image(read_captions(world / "results.csv")[0])
        pretrain(
            world / "flickr30k_images", captions, folder, facts=world / "facts.json", fact_weight=fact_weight,
            seed=seed, gpt2_steps=1,
        )  # fmt: skip
    return load_encoder(str(folder / "clip"))


def arms(seeds: int, *, world: Path, out: Path) -> Iterator[tuple[str, ImageEncoder | None]]:
    """Yield the name of each arm with one encoder after the other; None stands for raw pixels."""
    yield "raw pixels", None
    yield from (("untrained", untrained(seed)) for seed in range(seeds))
    yield "captions", pretrained(0, 0.0, world=world, out=out)
    yield "captions and facts", load_encoder("tiny")
    for seed in range(1, seeds):
        yield "captions", pretrained(seed, 0.0, world=world, out=out)
        yield "captions and facts", pretrained(seed, 1.0, world=world, out=out)
    yield "photos", CaptionWriter.load("photo").clip("photo")


def embed(encoder: ImageEncoder | None, data: Data, names: list[str]) -> torch.Tensor:
    """Return the vectors that a probe reads, float32 [N, D]: embeddings, or all pixels of each picture."""
    parts = []
    for start in range(0, len(names), AT_A_TIME):
        pictures = [open_picture(data.images / name) for name in names[start : start + AT_A_TIME]]
        if encoder is None:
            pixels = [torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8) for picture in pictures]
            parts.append(torch.stack(pixels) / 255)
        else:
            parts.append(encoder.embed(pictures))
    return torch.cat(parts)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=Path, default=Path("data/pretraining"))
    parser.add_argument("--out", type=Path, default=Path("runs/probing"))
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    data = open_drawn_world()
    train, test = data.image_names("train"), data.image_names("val")
    scenes = {"train_scenes": [data.facts[name] for name in train], "test_scenes": [data.facts[name] for name in test]}
    found: dict[str, list[dict[str, float]]] = {}
    for arm, encoder in arms(chosen.seeds, world=chosen.world, out=chosen.out):
        table = probe_facts(embed(encoder, data, train), test=embed(encoder, data, test), **scenes).set_index("fact")
        found.setdefault("commonest value", [table.commonest.to_dict()])
        found.setdefault(arm, []).append(table.probe.to_dict())
        print(f"{arm:<20}" + "  ".join(f"{fact} {share:.3f}" for fact, share in found[arm][-1].items()), flush=True)
    results: dict[str, Any] = {
        "command": f"python -m benchmarks.probing --seeds {chosen.seeds}",
        "pictures": {"probe fitted on": len(train), "read": len(test)},
        "machine": machine(threads=1),
        "right": {
            arm: {fact: [round(row[fact], 4) for row in rows] for fact in rows[0]} for arm, rows in found.items()
        },
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
