"""Karpathy's split of Flickr30k, on which the literature is measured, from the JSON that he published."""

import json
from pathlib import Path

import pandas as pd

from .errors import UserError


def read_karpathy(path: Path) -> pd.DataFrame:
    """The split of each image, DataFrame[image_name, split], of `{"images": [{"filename": …, "split": …}, …]}`.

    Raises UserError on a file that is missing or has another form.
    """
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
        return pd.DataFrame(
            [(str(image["filename"]), str(image["split"])) for image in images], columns=["image_name", "split"]
        )
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the path of Karpathy's dataset_flickr30k.json") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} is not in the form of Karpathy's dataset_flickr30k.json ({type(error).__name__}: {error}); give "
            'that file with its "images", each with a "filename" and a "split", or a CSV image_name,split'
        ) from None
