"""CLIPScore and RefCLIPScore (Hessel et al. 2021): how well a caption fits its picture, by a CLIP with both towers."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPModel, PreTrainedTokenizerBase

from ..data.images import open_picture, picture_path
from ..errors import UserError
from ..models.loading import find_model, load_clip, load_model, one_line_errors
from ..models.vision import Clip
from ..runtime.device import choose_accelerator
from .bootstrap import Score
from .scores import Scores

WEIGHT = 2.5  # w of the paper
PROMPT = "A photo depicts "  # before every caption and every reference, as in the paper
BATCH = 64


@dataclass(frozen=True)
class ClipJudge:
    """A CLIP with its text tower, to judge captions by. weights_sha256: of its vision tower."""

    clip: Clip
    towers: CLIPModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, name: str | Path) -> "ClipJudge":
        """name: as in `load_clip`. Raises UserError where that does, and without a text tower or a tokenizer."""
        device = choose_accelerator("fp32").device
        clip = load_clip(name, device)
        source = find_model(name, "clip")
        towers = load_model(CLIPModel, source, ("clip",), "CLIP with a text tower")
        with one_line_errors(source, "CLIP tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(source)
        size, vocabulary = len(tokenizer), towers.config.text_config.vocab_size
        if not size <= vocabulary < 2 * size:  # without its files transformers makes a tokenizer of a few tokens
            raise UserError(
                f"{name} has a tokenizer of {size} tokens that does not fit its text tower of {vocabulary}; give a "
                "CLIP with the tokenizer that it was trained with"
            )
        return cls(clip, towers.eval().to(device), tokenizer)

    @property
    def weights_sha256(self) -> str:
        return self.clip.fingerprint()["weights_sha256"]

    @torch.no_grad()
    def of_pictures(self, folder: Path, names: Sequence[str]) -> tuple[torch.Tensor, dict[str, str]]:
        """Unit vectors [N, projection]; NaN for a picture that cannot be read, with the reason by its name."""
        left_out, rows = {}, torch.full((len(names), self.towers.config.projection_dim), torch.nan)
        for start in tqdm(range(0, len(names), BATCH), desc="pictures", unit="batch"):
            pictures = {}  # by row
            for row, name in enumerate(names[start : start + BATCH], start):
                try:
                    pictures[row] = open_picture(picture_path(folder, name))
                except UserError as error:
                    left_out[name] = str(error)
            if pictures:
                pooled = self.clip.encode(list(pictures.values())).to(self.towers.device)
                rows[list(pictures)] = F.normalize(self.towers.visual_projection(pooled), dim=1).cpu()
        return rows, left_out

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors [N, projection] of texts behind the prompt; what is longer than the tower reads is cut."""
        longest, rows = self.towers.config.text_config.max_position_embeddings, []
        for start in tqdm(range(0, len(texts), BATCH), desc="texts", unit="batch"):
            batch = [PROMPT + text for text in texts[start : start + BATCH]]
            tokens = self.tokenizer(
                batch, padding=True, truncation=True, max_length=longest, split_special_tokens=True, return_tensors="pt"
            )
            tokens = {key: tokens[key].to(self.towers.device) for key in ("input_ids", "attention_mask")}
            rows.append(F.normalize(self.towers.text_projection(self.towers.text_model(**tokens).pooler_output), dim=1))
        return torch.cat(rows).cpu()


def add_clip_scores(
    scores: Scores, judge: ClipJudge, folder: str | Path, names: Sequence[str], captions: Sequence[str],
    references: Sequence[Sequence[str]], own: str | None = None,
) -> Scores:  # fmt: skip
    """The scores with CLIPScore and RefCLIPScore beside them, for the pictures `names` of `folder`.

    own: the weights_sha256 of the captioner's own CLIP, if it is known. Where it is the judge's, a warning says so: a
    caption written from an embedding is sure to please the CLIP that made it. Raises UserError where no picture can be
    read; those that cannot are named in the notes, and have no score.
    """
    pictures, left_out = judge.of_pictures(Path(folder), names)
    if len(left_out) == len(names):
        raise UserError(f"{folder} has none of the {len(names)} pictures to score, such as {names[0]} "
                        f"({left_out[names[0]]}); give the folder that holds them")  # fmt: skip
    written = judge.of_texts(captions)
    known = judge.of_texts([text for texts in references for text in texts]).split([len(texts) for texts in references])
    fit = clipscore((written * pictures).sum(dim=1).double().numpy())
    closest = np.array([(texts @ row).max().item() for row, texts in zip(written, known, strict=True)])
    measured = {"clipscore": Score.mean(fit), "refclipscore": Score.mean(refclipscore(fit, closest))}
    same = None if own is None else own == judge.weights_sha256
    if same:
        warnings.warn(
            f"CLIPScore is by {judge.clip.name}, the captioner's own CLIP, which flatters it; judge by another one",
            stacklevel=2,
        )
    notes = {"clip": judge.clip.name, "clip_is_the_captioners": same, "pictures_not_read": left_out}
    return replace(scores, measured=scores.measured | measured, notes=scores.notes | notes)


def clipscore(cosines: np.ndarray) -> np.ndarray:
    """Of the cosine between caption and picture: w * max(cos, 0)."""
    return WEIGHT * np.maximum(cosines, 0)


def refclipscore(scores: np.ndarray, closest: np.ndarray) -> np.ndarray:
    """The harmonic mean of CLIPScore and the cosine to the closest reference, each 0 where it is below."""
    closest = np.maximum(closest, 0)
    total = scores + closest
    return np.divide(2 * scores * closest, total, out=np.where(np.isnan(total), np.nan, 0.0), where=total > 0)
