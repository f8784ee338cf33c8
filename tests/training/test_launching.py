"""Training in several processes from a notebook, with two CPU processes instead of two cards."""

import subprocess
import sys

import pandas as pd
import pytest

from helpers.training.loop import train

SCRIPT = """
import sys
from helpers.config import Config
from helpers.errors import UserError
from helpers.data.dataset import open_data
from helpers.training.kaggle import train_on_all_cards

world, cache, out, epochs = sys.argv[1:]
data = open_data(f"{world}/flickr30k_images", f"{world}/results.csv")
config = Config(**{config}).with_values(epochs=int(epochs))
try:
    run = train_on_all_cards(config, data.captions, cache, out=out, watch=lambda table: None, cards=2)
except UserError as error:
    sys.exit(f"one line: {error}")
print(run.folder)
"""


@pytest.fixture
def launch(config, data, cache, tmp_path):
    """Start training as a notebook's kernel does, in a process that no test has used yet."""

    def script(epochs: int) -> subprocess.CompletedProcess:
        text = SCRIPT.replace("{config}", repr(config.with_values(dropout=0.0).to_dict()))
        words = [sys.executable, "-c", text, data.images.parent, cache.folder, tmp_path / "run", str(epochs)]
        return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=120)

    return script


def test_two_processes_from_a_notebook_learn_what_one_does(launch, config, data, cache, tmp_path):
    done = launch(config.epochs)
    assert done.returncode == 0, done.stderr[-2000:]
    one = train(config.with_values(dropout=0.0), data.captions, cache.folder, out=tmp_path / "one")
    columns = ["step", "loss", "val_loss", "lr"]
    two = pd.read_csv(tmp_path / "run" / "history.csv")
    pd.testing.assert_frame_equal(one.history()[columns], two[columns], rtol=1e-3)
    refused = launch(3)
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1].startswith("one line: ")
    assert "holds a run with epochs 2, here it is 3" in refused.stderr.strip().splitlines()[-1]
