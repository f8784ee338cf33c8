"""Which people does a captioner see? `python -m benchmarks.people CAPTIONER --images DIR --captions FILE ...`.

The photos of --split are sorted by their references: those that name only men or boys, only women or girls, people by
other words, or nobody. For each kind the table has the share of greedy captions that name men, women, people by other
words, or nobody; a caption that names men and women counts as both. Results: --out.
"""

import argparse
import json
import re
from pathlib import Path

from helpers.data.dataset import open_data
from helpers.data.embedding_cache import EmbeddingCache
from helpers.models.writer import CaptionWriter

WORDS = {
    "men": "man men boy boys guy guys male males gentleman father son he his him",
    "women": "woman women girl girls lady ladies female females mother daughter she her",
    "people": "person people child children kid kids baby toddler group crowd couple player players someone family",
}


def named(text: str) -> set[str]:
    """Return which of WORDS a text names."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return {kind for kind, known in WORDS.items() if words & set(known.split())}


def kind_of(references: list[str]) -> str:
    """Return what the references of one photo name: "men", "women", "both", "people" or "nobody"."""
    kinds = set().union(*map(named, references))
    if {"men", "women"} <= kinds:
        return "both"
    return next((kind for kind in ("men", "women", "people") if kind in kinds), "nobody")


def main() -> None:
    """Count, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captioner", type=Path)
    for name in ("images", "captions", "splits", "cache", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--split", default="val")
    chosen = parser.parse_args()
    data = open_data(chosen.images, chosen.captions, chosen.splits)
    names, by_name = data.image_names(chosen.split), data.captions.groupby("image_name").caption.apply(list)
    written = CaptionWriter.load(chosen.captioner).write(EmbeddingCache.open(chosen.cache).rows(names))
    table: dict[str, dict[str, float]] = {}
    for kind in ("men", "women", "both", "people", "nobody"):
        said = [named(text) for name, text in zip(names, written, strict=True) if kind_of(by_name[name]) == kind]
        shares = {word: sum(word in each for each in said) / len(said) for word in WORDS}
        table[kind] = {"photos": len(said), **shares, "nobody": sum(not each for each in said) / len(said)}
        print(f"references name {kind:<8}" + "  ".join(f"{name} {value:.3g}" for name, value in table[kind].items()))
    chosen.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
