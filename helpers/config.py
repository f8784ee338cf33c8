"""One training run in one frozen object: what is connected, what trains, and how.

The help, group and rule of a field stand beside its default. `Config` checks its values by them, and the commands make
their options from them.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

from .errors import UserError

INFINITY = float("inf")
POOLINGS = ("pooled", "patches", "projected", "stages")  # what an image encoder puts out (encoders/vision.py)
SEED = {"least": 0, "most": 2**31 - 1}  # the rule of every seed that PyTorch gets
REDUCED_TO = {"least": 32, "most": 4096}  # pixels that larger pictures may be reduced to (encoders/vision.py)


def _setting(group: str, default: Any, help: str, **rule: Any) -> Any:
    """Return a dataclass field with a default and, as metadata, its group, its help and its rule for `check_value`."""
    return field(default=default, metadata={"group": group, "help": help, "rule": rule})


_connected = partial(_setting, "What is connected")
_mapping = partial(_setting, "Mapping module")
_writing = partial(_setting, "How it writes")
_freezing = partial(_setting, "Freezing of GPT-2")
_training = partial(_setting, "Training")
_watching = partial(_setting, "Watching it")


@dataclass(frozen=True)
class Config:
    """The choices of one training run.

    The defaults are the original project's for CLIP ViT-B/32 and GPT-2 (jmisilo/clip-gpt-captioning, commit 2b22c04).
    If measurement showed a better value, the help names both. Raises UserError on a value that breaks its rule.
    """

    clip: str = _connected(
        "openai/clip-vit-base-patch32",
        "The frozen image encoder: a name on the Hugging Face hub, a folder, tiny or photo.",
    )
    gpt2: str = _connected(
        "gpt2",
        "The language model, GPT-2 or any other decoder-only one (docs/weights.md): a name on the Hugging Face hub, "
        "a folder, tiny or photo.",
    )
    start_from: str = _connected(
        "", "A captioner or run to go on from, in place of a new one: its encoder, its tokenizer and all its weights."
    )
    pooling: str = _connected(
        "pooled",
        "What the encoder says of a picture: one vector, as in the original, one vector per patch as well, one "
        "vector after its projection, as in ClipCap (CLIP only), or one of all its stages (EfficientNet-Lite only).",
        choices=POOLINGS,
    )

    mapper: str = _mapping(
        "encoder",
        "The design: one hidden layer (ClipCap's MLP), Transformer layers (the original's, mended), learned queries, "
        "or the Transformers of ClipCap and of the original as published. mlp and clipcap are not for patches.",
        choices=("mlp", "encoder", "queries", "clipcap", "original"),
    )
    prefix_length: int = _mapping(4, "Number of GPT-2 input embeddings that stand for the picture.", least=1, most=1024)
    mapper_layers: int = _mapping(6, "Transformer layers; mlp always has one hidden layer.", least=1, most=256)
    mapper_heads: int = _mapping(8, "Attention heads in each layer.", least=1)
    dropout: float = _mapping(
        0.1, "Dropout in the mapping module; GPT-2 keeps that of its checkpoint.", least=0, most=0.9
    )

    embedding_noise: float = _mapping(
        0.0,
        "Standard deviation of the noise added to standardised embeddings in training, for few photos.",
        least=0,
        most=2,
    )

    length_penalty: float = _writing(
        1.0,
        "Power of the length by which beam search divides a caption's log probability; less than 1 for shorter ones.",
        least=0,
        most=2,
    )

    freezing: str = _freezing(
        "first-and-last",
        "Which tensors train: none, first and last block (the original's), the last blocks, low-rank adapters, or all.",
        choices=("frozen", "first-and-last", "last-n", "lora", "full"),
    )
    last_n: int = _freezing(2, "Blocks that train under last-n.", least=1)
    lora_rank: int = _freezing(8, "Rank of the adapters under lora.", least=1, most=4096)
    train_embeddings: bool = _freezing(
        True, "Train the token and position embeddings too, under first-and-last, last-n and lora."
    )

    epochs: int = _training(150, "Passes over all captions.", least=1)
    batch_size: int = _training(64, "Captions per optimizer step.", least=1)
    micro_batches: int = _training(
        1, "Parts in which a batch is computed: more parts need less memory and give the same gradient.", least=1
    )
    mapper_lr: float = _training(
        2e-4,
        "Peak learning rate of the mapping module. The original aimed at 3e-3, its code reached 9e-6; a design "
        "wants its own (notebook 02).",
        above=0,
    )
    gpt2_lr: float = _training(
        9e-6,
        "Peak learning rate of GPT-2. For a pretrained one, over hundreds of thousands of steps: the original's code "
        "came to 9e-6, ClipCap took 2e-5. A small GPT-2 or a short training needs more (notebook 04).",
        above=0,
    )
    warmup: float = _training(1 / 3, "Share of the steps in which the learning rate rises.", least=0, most=1)
    weight_decay: float = _training(0.01, "AdamW's weight decay, on matrices only.", least=0, most=1)
    max_grad_norm: float = _training(1.0, "L2 norm to which gradients are clipped.", above=0)
    text_share: float = _training(
        0.0,
        "Captions learned without a picture beside each one learned with its own, so that GPT-2 does not forget how to "
        "write.",
        least=0,
        most=4,
    )
    text: str = _training("", "File of these captions, lines or a CSV; by default they are those of the photos.")
    max_caption_tokens: int = _training(64, "Tokens at which longer captions are cut, and counted.", least=2)
    precision: str = _training(
        "auto",
        "Number format to compute in; auto takes what the hardware is good at.",
        choices=("auto", "fp32", "fp16", "bf16"),
    )
    seed: int = _training(0, "Seed of the weights, the order of captions, and dropout.", **SEED)

    eval_every: int = _watching(1000, "Steps between validations, which also save a checkpoint.", least=1)
    log_every: int = _watching(50, "Steps between rows of history.csv.", least=1)
    keep_checkpoints: int = _watching(2, "Newest checkpoints to keep, beside the best.", least=1)

    def __post_init__(self) -> None:
        for each in fields(self):
            check_value(each.name, getattr(self, each.name), **each.metadata["rule"])
        if self.pooling == "patches" and self.mapper in ("mlp", "clipcap"):
            raise UserError(f"mapper is {self.mapper!r}, which takes one vector a picture, but pooling is 'patches': "
                            "choose mapper queries or encoder, or pooling pooled")  # fmt: skip

    def with_values(self, **values: Any) -> "Config":
        """Return this config with other values. Raises UserError on a name that is no field."""
        unknown = sorted(set(values) - {each.name for each in fields(self)})
        if unknown:
            known = ", ".join(each.name for each in fields(self))
            raise UserError(f"config has no field {', '.join(unknown)}; its fields are {known}")
        return replace(self, **values)

    @property
    def language_model(self) -> str:
        """The name or folder of the GPT-2 as it is before the training, for `load_gpt2`."""
        return self.start_from or self.gpt2

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a run's config.json holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """Return the config whose `to_dict` gave `values`, be it of an older version.

        A value that has another name now is translated, and a field that did not exist yet gets its default. Raises
        UserError on a name that is no field, and on a value of another type.
        """
        kinds = {each.name: each.type for each in fields(cls)}
        for name, value in values.items():
            if name in kinds and type(value) is not kinds[name] and (kinds[name], type(value)) != (float, int):
                raise UserError(f"{name} is {value!r}, but must be a value of type {kinds[name].__name__}")
        renamed = {name: RENAMED.get((name, str(value)), value) for name, value in values.items()}
        return cls().with_values(**renamed)


FREE = ("micro_batches", "keep_checkpoints")  # fields that may change when a run goes on
RENAMED = {("freezing", "none"): "full", ("freezing", "all"): "frozen"}  # (field, value of before): value of now


def check_value(
    name: str, value: Any, *, choices: tuple[str, ...] = (), least: float | None = None, most: float | None = None,
    above: float | None = None,
) -> None:  # fmt: skip
    """Raise UserError if `value` is none of the choices, not within `least` and `most`, or not above `above`."""
    if choices and value not in choices:
        close = [RENAMED.get((name, value)), *get_close_matches(str(value), choices, n=1)]
        hint = next((f"; did you mean {choice}?" for choice in close if choice), "")
        raise UserError(f"{name} is {value!r}, but must be one of {', '.join(choices)}{hint}")
    if least is not None and not least <= value <= (INFINITY if most is None else most):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise UserError(f"{name} is {value}, but must be {bounds}")
    if above is not None and not above < value < INFINITY:
        raise UserError(f"{name} is {value}, but must be above {above} and finite")


# Names that an ablation can vary beside the fields of the config, with their types (experiments/trial.py).
VARIED_BESIDE = {"defect": str, "train_images": int}
DEFECTS = (  # the values of `defect`: the original's bugs, by name
    "none", "double-softmax", "absolute-lr", "mixed-images", "double-wpe", "triple-wpe", "bos-at-inference",
    "first-token-lost", "end-never-learned", "padding-learned", "split-by-rows", "all",
)  # fmt: skip
