"""The tokenizer of a language model: loaded, and refused if it does not fit the model."""

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
