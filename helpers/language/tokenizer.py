"""The tokenizer of a language model: loaded, and refused if it does not fit the model."""

import hashlib
import json

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..errors import UserError
from ..runtime.libraries import one_line_errors, quietly


def load_tokenizer(source: str, vocabulary: int, *, what: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a language model with that many tokens. what: its name in messages.

    If it has no end-of-text but a separator, as the [SEP] of GPT-2s with BERT's tokenizer, that ends a text. Raises
    UserError if it does not fit the model.
    """
    with one_line_errors(source, what), quietly():
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:
            tokenizer.eos_token = tokenizer.sep_token
        size, last = len(tokenizer), max(tokenizer.get_vocab().values(), default=0)
        fits = 1 < size <= vocabulary and last < vocabulary and tokenizer.eos_token_id is not None
        fits = fits and bool(tokenizer("a dog")["input_ids"])
    if not fits:
        raise UserError(
            f"{source} has a tokenizer of {size} tokens that does not fit its language model of {vocabulary}, or no "
            "end-of-text; give a folder with the tokenizer that this model was trained with"
        )
    return tokenizer


def vocabulary_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the hash of a tokenizer's tokens, their ids and its merges.

    Tokens that were added beside its model take no part, because versions of transformers add different ones.
    """
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is None:  # a tokenizer in Python
        vocabulary, merges = tokenizer.get_vocab(), []
    else:
        vocabulary = backend.get_vocab(with_added_tokens=False)
        merges = json.loads(backend.to_str())["model"].get("merges", [])
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]  # versions write them in two ways
    return hashlib.sha256(json.dumps([sorted(vocabulary.items()), pairs]).encode()).hexdigest()


def refuse_another(tokenizer: PreTrainedTokenizerBase, source: str, *, vocabulary: int, sha256: str | None) -> None:
    """Raise UserError if the tokenizer of the captioner in `source` is not the one that it was saved with.

    vocabulary: the number of its language model's tokens. sha256: of its own tokenizer; None in captioners of before,
    whose tokenizer must have more than half as many tokens as the language model, which may be padded.
    """
    way_out = "put back the tokenizer that it was trained with, or give another captioner"
    if sha256 is None:
        if 2 * len(tokenizer) <= vocabulary:
            raise UserError(
                f"{source} has a tokenizer of {len(tokenizer)} tokens, at most half of its language model's "
                f"{vocabulary}, so it is not its own: {way_out}"
            )
    elif vocabulary_sha256(tokenizer) != sha256:
        raise UserError(
            f"{source} has another tokenizer than the one that it was saved with (tokenizer_sha256 in its "
            f"config.json): {way_out}"
        )
