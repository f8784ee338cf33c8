"""Scores that others report on Flickr30k and Flickr8k, each with its setting: a score means little without."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

NAMES = {  # data set: its photos' names and nothing else
    "Flickr30k": re.compile(r"[1-9]\d{4,9}\.jpg"),  # Flickr's number of the photo, as in 36979.jpg
    "Flickr8k": re.compile(r"\d{5,10}_[0-9a-f]{10}\.jpg"),  # with a key, as in 1000268201_693b08cb0e.jpg
}
TEST = {"Flickr30k": "Karpathy's 1,000 test images", "Flickr8k": "the 1,000 test images that its authors chose"}
TEST_IMAGES = 1000


class Published(NamedTuple):
    """A published score. cider, bleu_4: in our unit (papers write them times 100), None if not reported.

    data: the data set whose test images were captioned. setting: what it was trained on, and how it was scored.
    """

    name: str
    cider: float | None
    bleu_4: float | None
    data: str
    setting: str


# Xu et al. 2015: Table 1. Unified VLP: README of LuoweiZhou/VLP. By which tokenizer each was scored is not known here.
XU = "trained on its photos and captions; VGG; BLEU without brevity penalty"
PUBLISHED = (
    Published("Show, Attend and Tell, soft (Xu et al. 2015)", None, 0.191, "Flickr30k", XU),
    Published("Show, Attend and Tell, hard (Xu et al. 2015)", None, 0.199, "Flickr30k", XU),
    Published("Unified VLP (Zhou et al. 2020)", 0.674, 0.301, "Flickr30k",
              "pretrained on Conceptual Captions, then trained on its photos and captions; 5 beams"),
    Published("CapDec (Nukrai et al. 2022)", 0.391, None, "Flickr30k", "trained on its captions alone, no pictures"),
    Published("ViECap (Fei et al. 2023)", 0.479, None, "Flickr30k", "trained on its captions alone, no pictures"),
    Published("DeCap (Li et al. 2023)", 0.567, None, "Flickr30k", "trained on its captions alone, no pictures"),
    Published("Flamingo-80B (Alayrac et al. 2022)", 0.672, None, "Flickr30k", "zero-shot: trained on other data only"),
    Published("BLIP-2, Vicuna-13B (Dai et al. 2023)", 0.716, None, "Flickr30k",
              "zero-shot, by InstructBLIP's authors"),
    Published("Show, Attend and Tell, soft (Xu et al. 2015)", None, 0.195, "Flickr8k", XU),
    Published("Show, Attend and Tell, hard (Xu et al. 2015)", None, 0.213, "Flickr8k", XU),
    Published("ClipCap, MLP (Mokady et al. 2021)", 1.084, None, "COCO", "GPT-2 trained as well; not comparable"),
    Published("ClipCap, Transformer (Mokady et al. 2021)", 1.131, None, "COCO", "GPT-2 frozen; not comparable"),
)  # fmt: skip


def flickr_set(image_names: Iterable[str]) -> str | None:
    """Return "Flickr30k" or "Flickr8k" if every photo is named as those there are, else None."""
    names = list(image_names)
    return next((data for data, form in NAMES.items() if names and all(map(form.fullmatch, names))), None)


def published_lines() -> list[str]:
    """Return one line per published score, under a heading: name, CIDEr, BLEU-4, data set, setting."""
    heading = f"{'':<46}CIDEr  BLEU-4  test images"
    return [heading, *(_line(*each) for each in PUBLISHED)]


def beside(metrics: Mapping[str, Any], image_names: Iterable[str]) -> list[str]:
    """Return lines that set measured scores beside the published ones; none if the photos are of neither data set.

    metrics: as of `evaluate`, on the images of these names.
    """
    image_names = list(image_names)
    data = flickr_set(image_names)
    if data is None or "cider" not in metrics:
        return []
    heading, *others = published_lines()
    ours = _line("here", metrics["cider"], metrics["bleu_4"], data, f"{len(image_names)} images, by their names")
    lines = [heading, ours, *others]
    if len(image_names) != TEST_IMAGES:
        lines.append(f"(published scores on {data} are of {TEST[data]}: give that split by --splits)")
    return lines


def _line(name: str, cider: float | None, bleu_4: float | None, data: str, setting: str) -> str:
    values = "".join(f"{'' if value is None else f'{value:.3f}':<7}" for value in (cider, bleu_4))
    return f"{name:<46}{values} {data}; {setting}"
