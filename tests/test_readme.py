"""The README's code runs as it stands there, but for its paths and the size of the run."""

import re
from pathlib import Path

from helpers.pictures import open_picture
from helpers.writer import Decoding

README = Path(__file__).parents[1] / "README.md"


def test_both_pieces_of_code(data, tmp_path, monkeypatch, capsys):
    table = data.captions[data.captions.image_name.isin(data.image_names()[:30])]
    table = table.rename(columns={"image_name": "image"})[["image", "caption"]]
    table.to_csv(tmp_path / "my_captions.csv", index=False)
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
