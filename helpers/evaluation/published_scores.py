"""CIDEr that others report, mostly on Flickr30k, each with its setting: a score means little without."""

import re
from collections.abc import Iterable
from typing import NamedTuple

FLICKR30K_NAME = re.compile(r"[1-9]\d{4,9}\.jpg")  # Flickr's number of the photo and nothing else, as in 36979.jpg
KARPATHY_TEST = 1000  # images of Karpathy's test split of Flickr30k


class Published(NamedTuple):
    """A published score. cider: in our unit (papers write it times 100). setting: data and supervision."""

    name: str
    cider: float
    setting: str


PUBLISHED = (
    Published("CapDec (Nukrai et al. 2022)", 0.391, "Flickr30k test; trained on its captions alone, without pictures"),
    Published("ViECap (Fei et al. 2023)", 0.479, "Flickr30k test; trained on its captions alone, without pictures"),
    Published("DeCap (Li et al. 2023)", 0.567, "Flickr30k test; trained on its captions alone, without pictures"),
    Published("Flamingo-80B (Alayrac et al. 2022)", 0.672, "Flickr30k test; zero-shot: trained on other data only"),
    Published("BLIP-2, Vicuna-13B (Dai et al. 2023)", 0.716, "Flickr30k test; zero-shot, by InstructBLIP's authors"),
    Published("ClipCap, MLP (Mokady et al. 2021)", 1.084, "COCO test, not Flickr30k; GPT-2 trained as well"),
    Published("ClipCap, Transformer (Mokady et al. 2021)", 1.131, "COCO test, not Flickr30k; GPT-2 frozen"),
)


def is_flickr30k(image_names: Iterable[str]) -> bool:
    """Return whether every name is a Flickr number with .jpg and nothing else, as Flickr30k's are."""
    return all(FLICKR30K_NAME.fullmatch(name) for name in image_names)


def published_lines() -> list[str]:
    """Return one line per published score: name, CIDEr, setting."""
    return [_line(*each) for each in PUBLISHED]


def beside(cider: float, images: int) -> list[str]:
    """Return lines that set a CIDEr, measured on so many images of Flickr30k, beside the published ones."""
    lines = [_line("CIDEr here", cider, f"{images} images of Flickr30k, as their names say"), *published_lines()]
    if images != KARPATHY_TEST:
        lines.append(
            f"(those on Flickr30k are of Karpathy's {KARPATHY_TEST} test images: give --splits dataset_flickr30k.json)"
        )
    return lines


def _line(name: str, cider: float, setting: str) -> str:
    return f"{name:<44}{cider:.3f}  {setting}"
