"""An exported captioner that writes captions with ONNX Runtime: Pillow, NumPy and tokenizers, no PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..models.decoding import Decoding
from ..runtime.texts import first_line
from .folder import LANGUAGE, PICTURE, TOKENIZER, read_settings
from .pictures import prepare
from .search import BeamSearch, Ending, Greedy


@dataclass(frozen=True)
class Seen:
    """The picture graph's output for N pictures. prefix: [N, P, E]; strangeness: [N], above 1 if unlike training."""

    prefix: np.ndarray
    strangeness: np.ndarray | None

    def __len__(self) -> int:
        return len(self.prefix)


@dataclass(frozen=True)
class OnnxWriter:
    """The two graphs and the tokenizer of an exported captioner; its methods are those of `CaptionWriter`."""

    settings: dict[str, Any]
    picture: Any  # onnxruntime.InferenceSession
    language: Any
    tokenizer: Any  # tokenizers.Tokenizer

    @classmethod
    def load(cls, folder: str | Path) -> "OnnxWriter":
        """Load what `clipxgpt export` made. Raises UserError if it is missing or broken, or ONNX Runtime is missing."""
        folder = Path(folder)
        settings = read_settings(folder)
        try:
            import onnxruntime
        except ImportError:
            raise UserError("--runtime onnx needs ONNX Runtime: pip install onnxruntime") from None
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        # Weights of one byte are turned into floats once, when they are loaded, and not in each step.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # The threads of one graph must not spin while the other computes, or while somebody else needs the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            picture, language = (
                onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
                for name in (PICTURE, LANGUAGE)
            )
            return cls(settings, picture, language, Tokenizer.from_file(str(folder / TOKENIZER)))
        except Exception as error:  # ONNX Runtime and tokenizers raise their own
            raise UserError(f"{folder} cannot be loaded ({first_line(error)}): export the captioner again") from error

    def embed(self, pictures: list[Image.Image]) -> Seen:
        """Return what the captioner sees in RGB pictures."""
        outputs = [name.name for name in self.picture.get_outputs()]
        # One picture at a time: several gain no time on a CPU, and take memory.
        each = [
            self.picture.run(outputs, {"pixels": prepare(picture, self.settings["pictures"])[None]})
            for picture in pictures
        ]
        prefix, *strangeness = (np.concatenate(parts) for parts in zip(*each, strict=True))
        return Seen(prefix, strangeness[0] if strangeness else None)

    def unlike_training(self, seen: Seen) -> list[bool | None]:
        """Return whether each picture is unlike those of the training; None if that is not known."""
        return [None] * len(seen) if seen.strangeness is None else (seen.strangeness > 1).tolist()

    def write(self, seen: Seen, decoding: Decoding | None = None) -> list[str]:
        """Write one caption per picture, greedy or by beam search.

        Raises UserError on sampling and on guidance, which need PyTorch.
        """
        decoding = decoding or Decoding()
        if decoding.temperature or decoding.guidance != 1:
            raise UserError("--runtime onnx takes neither --temperature nor --guidance: leave them out, or leave out "
                            "--runtime and give the captioner that was exported")  # fmt: skip
        ids = self._search(seen.prefix, self._begin(decoding))
        return [decoding.worded(each.strip()) for each in self.tokenizer.decode_batch(ids, skip_special_tokens=True)]

    def _begin(self, decoding: Decoding) -> Callable[[], Greedy | BeamSearch]:
        writing = self.settings["writing"]
        longest = decoding.for_generate(writing["longest"])["max_new_tokens"]
        ending = Ending(tuple(writing["endings"]), longest, writing["length_penalty"])
        return lambda: Greedy(ending) if decoding.beams == 1 else BeamSearch(ending, decoding.beams)

    def _search(self, prefix: np.ndarray, begin: Callable[[], Greedy | BeamSearch]) -> list[list[int]]:
        """Return the caption tokens of each picture. The open searches' rows go through the graph together."""
        searches = [begin() for _ in prefix]
        scores, past = self._step(prefix, np.zeros((len(prefix), 0), np.int64), None)
        going = searches
        while going:
            first, kept, tokens = 0, [], []
            for search in going:
                rows = search.rows
                kept += [first + row for row in search.advance(scores[first : first + rows])]
                tokens += search.last_tokens()
                first += rows
            going = [search for search in going if search.rows]
            if going:
                none = np.zeros((len(tokens), 0, prefix.shape[2]), np.float32)
                scores, past = self._step(none, np.array(tokens)[:, None], [each[kept] for each in past])
        return [search.caption for search in searches]

    @cached_property
    def _past_names(self) -> list[str]:
        """The language graph's inputs behind vectors and tokens: the keys and values of each layer."""
        return [each.name for each in self.language.get_inputs()][2:]

    def _step(
        self, vectors: np.ndarray, tokens: np.ndarray, past: list[np.ndarray] | None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the scores [R, V] behind vectors [R, P, E] and tokens [R, T], and the cache for the next step.

        past: the cache of what came before, keys and values [R, heads, seen, width] of each layer; None at the start.
        """
        if past is None:
            writing = self.settings["writing"]
            none = np.zeros((len(vectors), writing["heads"], 0, writing["head_width"]), np.float32)
            past = [none] * len(self._past_names)
        fed = {"vectors": vectors, "tokens": tokens, **dict(zip(self._past_names, past, strict=True))}
        scores, *past = self.language.run(None, fed)
        return scores, past
