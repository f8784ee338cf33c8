"""An exported captioner writes what PyTorch writes, without PyTorch."""

import errno
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from PIL import Image
from small_models import END, random_captioner

from helpers.cli import main
from helpers.data.images import open_picture
from helpers.encoders.processor import CLIPImageProcessor
from helpers.encoders.vision import image_features
from helpers.errors import UserError
from helpers.export import export
from helpers.export.export import export_captioner, preparation
from helpers.export.graphs import LanguageGraph, export_picture
from helpers.export.parity import compare
from helpers.export.pictures import prepare
from helpers.export.writer import OnnxWriter, Seen
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter


@pytest.fixture(scope="module")
def pictures(data):
    return {name: open_picture(data.images / name) for name in data.image_names()[:12]}


@pytest.fixture(scope="module")
def exported(finished, pictures, tmp_path_factory):
    """The folder of the exported captioner, and the report."""
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    return folder, export_captioner(finished.folder, folder, [pictures])


def test_the_captions_are_those_of_pytorch(exported):
    report = exported[1]
    assert report["pictures"] == 12
    assert report["float"]["same_captions"] == {"greedy": 1, "3 beams": 1}
    assert report["float"]["largest_prefix_difference"] < 1e-4
    assert min(report["int8"]["same_captions"].values()) > 0.7
    assert report["int8"]["megabytes"] < 0.5 * report["float"]["megabytes"]
    for each in report["int8"]["different"]:
        assert each["pytorch"] != each["exported"]


def test_without_pictures_nothing_is_compared(exported, writer):
    report = compare(writer, {"float": OnnxWriter.load(exported[0])}, [])
    assert report["pictures"] == 0
    assert report["float"]["same_captions"] == {"greedy": None, "3 beams": None}


def test_neutral_words_are_those_of_pytorch(exported, writer, monkeypatch):
    monkeypatch.setattr(Decoding, "worded", lambda self, caption: f"{caption}, worded" if self.neutral else caption)
    onnx = OnnxWriter.load(exported[0])
    seen = Seen(np.zeros((1, 4, writer.captioner.config.text_config.hidden_size), np.float32), None)
    assert onnx.write(seen, Decoding(neutral=True)) == [f"{onnx.write(seen)[0]}, worded"]


def test_pictures_unlike_the_training_are_known(exported, writer, pictures):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    shown = [*pictures.values(), noise]
    expected = writer.captioner.strangeness(writer.embed(shown)).numpy()
    for folder, closeness in ((exported[0], 1e-4), (exported[0] / "int8", 0.05)):
        onnx = OnnxWriter.load(folder)
        seen = onnx.embed(shown)
        assert seen.strangeness == pytest.approx(expected, rel=closeness)
        assert onnx.unlike_training(seen) == (seen.strangeness > 1).tolist()


def test_pictures_of_a_second_training_are_known_in_the_graph_too(tmp_path):
    captioner = random_captioner(familiarity=1)
    captioner.prepare_for(torch.randn(60, 32))
    captioner.know(5 + torch.randn(60, 32))
    assert len(captioner.familiarity) == 2
    pixels = torch.randn(4, 3, 32, 32)
    export_picture(captioner, pixels[:2], tmp_path / "picture.onnx")
    _, strangeness = InferenceSession(tmp_path / "picture.onnx").run(None, {"pixels": pixels.numpy()})
    expected = captioner.strangeness(image_features(captioner.clip, pixels, "pooled"))
    assert strangeness == pytest.approx(expected.numpy(), rel=1e-3)


def test_predict_needs_neither_pytorch_nor_transformers(exported, writer, data, pictures, tmp_path):
    names = list(pictures)[:3]
    code = f"""
import sys
from helpers.cli import main
main(["predict", "-C", {str(exported[0])!r}, "--runtime", "onnx", "--beams", "3",
      "--csv", {str(tmp_path / "captions.csv")!r}, *{[str(data.images / name) for name in names]!r}])
loaded = {{"torch", "transformers", "onnx", "pandas", "scipy", "matplotlib"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = writer.write(writer.embed([pictures[name] for name in names]), Decoding(beams=3))
    assert [line.partition(": ")[2] for line in done.stdout.splitlines()] == expected
    assert (tmp_path / "captions.csv").read_text().startswith("image,caption,unlike_training\n")


class TorchSession:
    """A language graph that PyTorch computes, with the methods of ONNX Runtime's sessions."""

    def __init__(self, gpt2):
        self.graph, self.names = LanguageGraph(gpt2).eval(), [f"past_{n}" for n in range(2 * gpt2.config.n_layer)]

    def get_inputs(self):
        return [SimpleNamespace(name=name) for name in ("vectors", "tokens", *self.names)]

    @torch.no_grad()
    def run(self, _outputs, fed):
        return [each.numpy() for each in self.graph(*(torch.tensor(value) for value in fed.values()))]


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
@pytest.mark.parametrize(("stop", "longest"), [(None, 12), (7, 12), (None, 3), (7, 1)])
def test_the_search_is_that_of_transformers(beams, stop, longest):
    captioner = random_captioner(stop_token_id=stop, beam_length_penalty=0.5)
    captioner.gpt2.lm_head.weight.data[END] *= 3  # so that some captions end early
    captioner.end_with(END)
    embeddings = torch.randn(9, 32, generator=torch.Generator().manual_seed(1))
    ids = captioner.generate(embeddings, num_beams=beams, max_new_tokens=longest).tolist()
    tokenizer = SimpleNamespace(decode_batch=lambda rows, **_: [" ".join(map(str, row)) for row in rows])
    settings = {"writing": {"endings": captioner.endings, "longest": longest, "length_penalty": 0.5, "heads": 4,
                            "head_width": 12}}  # fmt: skip
    onnx = OnnxWriter(settings, None, TorchSession(captioner.gpt2), tokenizer)
    with torch.no_grad():
        prefix = captioner.prefix(embeddings).numpy()
    found = onnx.write(Seen(prefix, None), Decoding(beams=beams, max_tokens=longest))
    expected = [row[: next((place + 1 for place, token in enumerate(row) if token in captioner.endings), None)]
                for row in ids]  # fmt: skip
    assert found == [" ".join(map(str, row)) for row in expected]


@pytest.mark.parametrize(
    "choices",
    [
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        {"size": {"height": 40, "width": 40}, "do_center_crop": False, "resample": 2},
        {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}, "reduce_to": 48},
    ],
)
def test_pictures_are_prepared_as_by_the_processor(choices, tiny_clip):
    from helpers.encoders.vision import ImageEncoder

    encoder = ImageEncoder(None, CLIPImageProcessor(**choices), "test")
    rng = np.random.default_rng(0)
    for width, height in ((100, 75), (33, 90), (32, 32), (20, 31)):
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        expected = encoder.pixel_values([picture])[0].numpy()
        settings = preparation(encoder.processor, expected.shape[1:])
        assert prepare(picture, settings) == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_exported_is_refused_in_a_line(finished, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("")
    with pytest.raises(
        UserError, match="taken already holds something else than an exported captioner, such as thesis"
    ):
        export_captioner(finished.folder, tmp_path / "taken")
    with pytest.raises(UserError, match=r"must resize by bilinear or bicubic"):
        preparation(CLIPImageProcessor(resample=0), (32, 32))
    old = CaptionWriter.load(finished.folder)
    old.captioner.config.original_start = True
    old.save(tmp_path / "original")
    with pytest.raises(UserError, match="begins its captions as the original does"):
        export_captioner(tmp_path / "original", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_whole_is_refused_in_a_line(exported, finished, tmp_path):
    with pytest.raises(UserError, match=r"is no exported captioner: clipxgpt export .* --out DIR makes one"):
        OnnxWriter.load(finished.captioner)
    broken = shutil.copytree(exported[0], tmp_path / "broken")
    (broken / "language.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"broken cannot be loaded \(.*\): export the captioner again"):
        OnnxWriter.load(broken)
    (broken / "language.onnx").unlink()
    with pytest.raises(UserError, match=r"broken lacks language\.onnx: export the captioner again"):
        OnnxWriter.load(broken)
    settings = json.loads((broken / "captioner.json").read_text())
    (broken / "language.onnx").touch()
    for part, name, value in (("pictures", "mean", None), ("pictures", "resample", 3), ("writing", "endings", "x"),
                              ("writing", "longest", None)):  # fmt: skip
        for cut in (settings | {part: settings[part] | {name: value}}, settings | {part: []}):
            (broken / "captioner.json").write_text(json.dumps(cut))
            with pytest.raises(UserError, match=rf"captioner\.json has no {part}\..* that can be used: export the"):
                OnnxWriter.load(broken)
    (broken / "captioner.json").write_text('{"version": 0}')
    with pytest.raises(UserError, match="has version 0, but version 1 is read here"):
        OnnxWriter.load(broken)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (["--runtime", "tpu"], "runtime is 'tpu', but must be one of torch, onnx"),
        ([], "is an exported captioner: add --runtime onnx"),
        (
            ["--runtime", "onnx", "-C", "photo"],
            "photo is no exported captioner: clipxgpt export photo --out DIR makes one",
        ),
        (["--runtime", "onnx", "--temperature", "1"], "--runtime onnx takes neither --temperature nor --guidance"),
    ],
)
def test_predict_says_in_a_line_what_does_not_fit(exported, data, pictures, capsys, chosen, said):
    with pytest.raises(SystemExit):
        main(["predict", str(data.images / next(iter(pictures))), "-C", str(exported[0]), *chosen])
    assert said in capsys.readouterr().err


def test_pictures_to_compare_on_that_are_not_there(finished, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["export", str(finished.folder), "--out", str(tmp_path / "out"), "--images", "nope"])
    assert "nope is no folder: give the folder that holds the pictures" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_no_mistake_of_the_captioner(finished, tmp_path, monkeypatch):
    def full(*_arguments, **_named):
        raise OSError(errno.ENOSPC, "No space left on device", "picture.onnx")

    monkeypatch.setattr(torch.onnx, "export", full)
    with pytest.raises(OSError, match="No space left on device"):
        export_captioner(finished.folder, tmp_path / "out")


def test_a_package_that_the_export_needs_is_named(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UserError, match="the export needs onnxscript: pip install onnx onnxruntime onnxscript"):
        export_captioner(finished.folder, tmp_path / "out")


def test_sampling_and_guidance_need_pytorch(exported):
    onnx = OnnxWriter.load(exported[0])
    for decoding in (Decoding(temperature=1.0), Decoding(guidance=1.5)):
        with pytest.raises(UserError, match="takes neither --temperature nor --guidance"):
            onnx.write(Seen(np.zeros((1, 4, 8), np.float32), None), decoding)
