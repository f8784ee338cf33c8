"""Are an exported captioner's captions those of PyTorch?"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from PIL import Image

from ..models.decoding import Decoding
from ..models.writer import CaptionWriter
from .writer import OnnxWriter

DECODINGS = (Decoding(), Decoding(beams=3))


def compare(
    writer: CaptionWriter, exported: Mapping[str, OnnxWriter], batches: Iterable[Mapping[str, Image.Image]]
) -> dict[str, Any]:
    """Caption pictures with PyTorch and with each exported captioner, greedy and by beam search; report what differs.

    batches: RGB pictures by name, some at a time. Returns the number of pictures, and for each exported captioner the
    largest difference in a prefix, the share of captions that are the same, None without pictures, and those that
    are not.
    """
    names: list[str] = []
    written: dict[tuple[str, str], list[str]] = defaultdict(list)
    differences = dict.fromkeys(exported, 0.0)
    for batch in batches:
        pictures = list(batch.values())
        names += batch
        embeddings = writer.embed(pictures)
        with torch.no_grad():
            prefix = writer.captioner.prefix(embeddings).numpy()
        seen = {name: each.embed(pictures) for name, each in exported.items()}
        for name in exported:
            differences[name] = max(differences[name], float(abs(seen[name].prefix - prefix).max()))
        for decoding in DECODINGS:
            for name, captions in (
                ("pytorch", writer.write(embeddings, decoding)),
                *((name, each.write(seen[name], decoding)) for name, each in exported.items()),
            ):
                written[name, str(decoding)] += captions
    report: dict[str, Any] = {"pictures": len(names)}
    for name in exported:
        same, different = {}, []
        for decoding in map(str, DECODINGS):
            triples = list(zip(names, written["pytorch", decoding], written[name, decoding], strict=True))
            other = [triple for triple in triples if triple[1] != triple[2]]
            same[decoding] = round(1 - len(other) / len(names), 4) if names else None
            different += [
                {"picture": picture, "decoding": decoding, "pytorch": expected, "exported": found}
                for picture, expected, found in other
            ]
        report[name] = {"largest_prefix_difference": differences[name], "same_captions": same, "different": different}
    return report
