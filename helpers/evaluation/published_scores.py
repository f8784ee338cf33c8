"""What others report on Flickr30k, each with its setting: a score means little without."""

import re
from collections.abc import Iterable
from typing import NamedTuple

FLICKR30K_NAME = re.compile(r"[1-9]\d{4,9}\.jpg")  # Flickr's number of the photo and nothing else, as in 36979.jpg
KARPATHY_TEST = 1000  # images of the test split that all these are measured on


class Yardstick(NamedTuple):
    name: str
    cider: float  # in our unit; papers write it times 100
    setting: str


YARDSTICKS = (
    Yardstick("CapDec (Nukrai et al. 2022)", 0.391, "Flickr30k test; trained on its captions alone, without pictures"),
    Yardstick("ViECap (Fei et al. 2023)", 0.479, "Flickr30k test; trained on its captions alone, without pictures"),
    Yardstick("DeCap (Li et al. 2023)", 0.567, "Flickr30k test; trained on its captions alone, without pictures"),
    Yardstick("Flamingo-80B (Alayrac et al. 2022)", 0.672, "Flickr30k test; zero-shot: trained on other data only"),
    Yardstick("BLIP-2, Vicuna-13B (Dai et al. 2023)", 0.716, "Flickr30k test; zero-shot, by InstructBLIP's authors"),
    Yardstick("ClipCap, MLP (Mokady et al. 2021)", 1.084, "COCO test, not Flickr30k; GPT-2 trained as well"),
    Yardstick("ClipCap, Transformer (Mokady et al. 2021)", 1.131, "COCO test, not Flickr30k; GPT-2 frozen"),
)


def is_flickr30k(image_names: Iterable[str]) -> bool:
    """Whether these look like Flickr30k's images: every name is a Flickr number with .jpg, and nothing else."""
    return all(FLICKR30K_NAME.fullmatch(name) for name in image_names)


def table() -> list[str]:
    """A line a yardstick."""
    return [f"{name:<44}{value:.3f}  {setting}" for name, value, setting in YARDSTICKS]


def beside(cider: float, images: int) -> list[str]:
    """Lines with the yardsticks beside a CIDEr on so many images of Flickr30k."""
    lines = [f"{'CIDEr here':<44}{cider:.3f}  {images} images of Flickr30k, as their names say"]
    lines += table()
    if images != KARPATHY_TEST:
        lines.append(f"(theirs are on Karpathy's {KARPATHY_TEST} test images: give --splits dataset_flickr30k.json)")
    return lines
