"""The README's code runs as it stands there, but for its paths and the size of the run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from helpers.data.images import open_picture
from helpers.models.decoding import Decoding

README = Path(__file__).parents[1] / "README.md"


def own_captions(data):
    """A practitioner's file: two columns, one caption of them pasted in by mistake and 1,000 words long."""
    table = data.captions[data.captions.image_name.isin(data.image_names()[:30])].copy()
    table.loc[table[table.split == "train"].index[0], "caption"] = "a red circle in the middle " * 167
    return table.rename(columns={"image_name": "image"})[["image", "caption"]]


def test_both_pieces_of_code(data, tmp_path, monkeypatch, capsys):
    own_captions(data).to_csv(tmp_path / "my_captions.csv", index=False)
    another = data.images / data.image_names()[-1]
    here = {
        "my_photos": str(data.images), "another.jpg": str(another), "runs/tiny/captioner": "runs/mine/captioner",
        'preset("small").with_values(epochs=10)': 'preset("tiny").with_values(epochs=1, mapper_layers=1)',
    }  # fmt: skip
    own_photos, in_code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    for there, replacement in here.items():
        assert there in own_photos + in_code
        own_photos, in_code = (code.replace(there, replacement) for code in (own_photos, in_code))
    monkeypatch.chdir(tmp_path)

    names = {}
    exec(own_photos, names)
    writer, picture = names["writer"], open_picture(another)
    assert capsys.readouterr().out == f"{writer.write(writer.embed([picture]))}\n"

    names["pixel_values"] = writer.clip().pixel_values([picture])
    exec(in_code, names)
    captions = writer.tokenizer.batch_decode(names["token_ids"], skip_special_tokens=True)
    assert [caption.strip() for caption in captions] == writer.write(writer.embed([picture]), Decoding(beams=5))


def test_own_photos_by_three_commands(data, tmp_path):
    own_captions(data).to_csv(tmp_path / "my_captions.csv", index=False)
    (tmp_path / "my_photos").symlink_to(data.images.resolve())
    (tmp_path / "another.jpg").write_bytes((data.images / data.image_names()[-1]).read_bytes())
    section = README.read_text(encoding="utf-8").split("## Your own photos")[1].split("\n## ")[0]
    three, advice = re.findall(r"```\n(clipxgpt.*?)```", section, flags=re.DOTALL)
    commands = [shlex.split(line.replace("small", "tiny").replace("--epochs 10", "--epochs 1 --mapper-layers 1"))
                for line in [*three.splitlines(), advice.splitlines()[-1]]]  # fmt: skip
    names = ("train", "evaluate", "predict", "evaluate")
    assert [command[:2] for command in commands] == [["clipxgpt", name] for name in names]
    environment = {**os.environ, "PYTHONPATH": str(README.parent), "OMP_NUM_THREADS": "1"}
    said = []
    for command in commands:
        done = subprocess.run([sys.executable, "-m", "helpers", *command[1:]], cwd=tmp_path, env=environment,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
    assert "1 captions are cut at 64 tokens, such as 'a red circle in the middle" in said[0]
    assert said[2].strip()
