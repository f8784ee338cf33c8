"""CLIPScore and RefCLIPScore (Hessel et al. 2021): how well a caption fits its picture, as a CLIP judges it."""

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
from ..encoders.locked_clip import LockedClip, LockedClipConfig
from ..encoders.vision import ImageEncoder
from ..errors import UserError
from ..models.loading import load_config, load_encoder, load_weights
from ..runtime.device import choose_accelerator
from ..runtime.libraries import one_line_errors
from ..runtime.model_folders import find_model
from .bootstrap import Score
from .scores import Scores

WEIGHT = 2.5  # w of the paper
PROMPT = "A photo depicts "  # before every caption and every reference, as in the paper
BATCH = 64  # pictures or texts that the judge sees at a time


@dataclass(frozen=True)
class ClipJudge:
    """A CLIP with its text tower and tokenizer, to judge captions by."""

    clip: ImageEncoder
    towers: CLIPModel | LockedClip
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, name: str | Path) -> "ClipJudge":
        """Load a judge by a name on the hub, a folder or "tiny".

        Raises UserError if `load_encoder` does, or if there is no text tower or no tokenizer that fits it.
        """
        device = choose_accelerator("fp32").device
        clip = load_encoder(name, device=device)
        source = find_model(name, "clip")
        kinds = {"clip": CLIPModel, LockedClipConfig.model_type: LockedClip}
        found = load_config(source, types=tuple(kinds), what="CLIP with a text tower")
        towers = load_weights(kinds[found.model_type], source, found, what="CLIP with a text tower")
        with one_line_errors(source, "CLIP tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        size, vocabulary = len(tokenizer), towers.config.text_config.vocab_size
        if not size <= vocabulary < 2 * size:  # without its files transformers makes a tokenizer of a few tokens
            raise UserError(
                f"{name} has a tokenizer of {size} tokens that does not fit its text tower of {vocabulary}; give a "
                "CLIP with the tokenizer that it was trained with"
            )
        return cls(clip, towers.eval().to(device), tokenizer)

    @property
    def weights_sha256(self) -> str:
        """The hash of its vision tower's weights, as in a cache's fingerprint."""
        return self.clip.fingerprint()["weights_sha256"]

    @torch.no_grad()
    def picture_vectors(self, folder: Path, names: Sequence[str]) -> tuple[torch.Tensor, dict[str, str]]:
        """Return unit vectors of N pictures, float32 [N, projection], and {name: reason} of those it cannot read.

        The row of a picture that cannot be read is NaN.
        """
        unread, rows = {}, torch.full((len(names), self.towers.config.projection_dim), torch.nan)
        for start in tqdm(range(0, len(names), BATCH), desc="pictures", unit="batch"):
            pictures = {}  # by row
            for row, name in enumerate(names[start : start + BATCH], start):
                try:
                    pictures[row] = open_picture(picture_path(folder, name))
                except UserError as error:
                    unread[name] = str(error)
            if pictures:
                pooled = self.clip.embed(list(pictures.values())).to(self.towers.device)
                rows[list(pictures)] = F.normalize(self.towers.visual_projection(pooled), dim=1).cpu()
        return rows, unread

    @torch.no_grad()
    def text_vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit vectors of N texts behind the prompt, float32 [N, projection]; a text too long is cut."""
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
    scores: Scores, judge: ClipJudge, *, images: str | Path, names: Sequence[str], written: Sequence[str],
    references: Sequence[Sequence[str]], own: str | None = None,
) -> Scores:  # fmt: skip
    """Return the scores with CLIPScore and RefCLIPScore beside them.

    images: the folder of the pictures. names, written, references: the N pictures, the caption of each, and its
    references, at least one. own: the weights_sha256 or the rounded_sha256 of the captioner's own CLIP, if it is known.
    If the judge is that CLIP, a warning says so: a caption written from an embedding is sure to please the CLIP that
    made it. Rounding to float16 makes no other CLIP.
    A picture that cannot be read has no score and stands in the notes. Raises UserError if none can be read.
    """
    pictures, unread = judge.picture_vectors(Path(images), names)
    if len(unread) == len(names):
        raise UserError(f"{images} has none of the {len(names)} pictures to score, such as {names[0]} "
                        f"({unread[names[0]]}); give the folder that holds them")  # fmt: skip
    captions = judge.text_vectors(written)
    known = judge.text_vectors([text for texts in references for text in texts])
    fit = clipscore((captions * pictures).sum(dim=1).double().numpy())
    by_image = zip(known.split([len(texts) for texts in references]), captions, strict=True)
    closest = np.array([(vectors @ caption).max().item() for vectors, caption in by_image])
    measured = {"clipscore": Score.mean(fit), "refclipscore": Score.mean(refclipscore(fit, closest))}
    same = None if own is None else own in (judge.weights_sha256, judge.clip.rounded_sha256)
    if same:
        warnings.warn(
            f"CLIPScore is by {judge.clip.name}, the captioner's own CLIP, which has the same blind spots: judge by "
            "another one too",
            stacklevel=2,
        )
    notes = {"clip": judge.clip.name, "clip_is_the_captioners": same, "pictures_not_read": unread}
    return replace(scores, measured=scores.measured | measured, notes=scores.notes | notes)


def clipscore(cosines: np.ndarray) -> np.ndarray:
    """Return CLIPScore, 0 to 2.5, of cosines between caption and picture: w * max(cosine, 0)."""
    return WEIGHT * np.maximum(cosines, 0)


def refclipscore(scores: np.ndarray, closest: np.ndarray) -> np.ndarray:
    """Return the harmonic mean of CLIPScore and the cosine to the closest reference; a negative cosine counts as 0."""
    closest = np.maximum(closest, 0)
    total = scores + closest
    return np.divide(2 * scores * closest, total, out=np.where(np.isnan(total), np.nan, 0.0), where=total > 0)
