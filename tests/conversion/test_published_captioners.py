"""ClipCap's and the original's captioners, converted: the same logits and the same captions as their own code.

Both models are written here as their projects describe them, with random weights.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    GPT2Config,
    GPT2LMHeadModel,
)

from helpers.commands.options import chosen_config
from helpers.conversion.clipcap import convert_clipcap
from helpers.conversion.original import convert_original
from helpers.data.build_cache import open_cache
from helpers.encoders.processor import CLIPImageProcessor
from helpers.errors import UserError
from helpers.models.captioner import Captioner
from helpers.models.captioner_config import CaptionerConfig
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter
from helpers.training.checkpoint import newest_step
from helpers.training.loop import train

END = 256  # end of text in the tests' tokenizer


def gpt2(width: int, layers: int, vocabulary: int = 257, positions: int = 96) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=layers, n_head=width // 64,
        bos_token_id=END, eos_token_id=END, initializer_range=0.3 / math.sqrt(width / 64),
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def randomise(module: nn.Module) -> None:
    """Give norms and biases random values, so that none of them could be left out unseen."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))


def with_masks(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Add what versions of transformers of that time saved as well."""
    layers = {key.split(".h.")[1].split(".")[0] for key in state if ".h." in key}
    for layer in layers:
        state[f"{name}.transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 96, 96).tril().bool()
        state[f"{name}.transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    return state


class ClipCapAttention(nn.Module):
    def __init__(self, width: int, heads: int = 8):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        queries = self.to_queries(x).reshape(b, n, self.heads, c // self.heads)
        keys, values = self.to_keys_values(x).reshape(b, n, 2, self.heads, c // self.heads).unbind(2)
        attention = (torch.einsum("bnhd,bmhd->bnmh", queries, keys) * self.scale).softmax(dim=2)
        return self.project(torch.einsum("bnmh,bmhd->bnhd", attention, values).reshape(b, n, c))


class ClipCapLayer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width), ClipCapAttention(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 2 * width), "fc2": nn.Linear(2 * width, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.relu(self.mlp["fc1"](self.norm2(x))))


class ClipCapTransformer(nn.Module):
    def __init__(self, embedding: int, width: int, prefix: int, clip_length: int, layers: int):
        super().__init__()
        self.clip_length = clip_length
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(ClipCapLayer(width) for _ in range(layers))})
        self.linear = nn.Linear(embedding, clip_length * width)
        self.prefix_const = nn.Parameter(torch.randn(prefix, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x).view(len(x), self.clip_length, -1)
        x = torch.cat([x, self.prefix_const.unsqueeze(0).expand(len(x), -1, -1)], dim=1)
        for layer in self.transformer["layers"]:
            x = layer(x)
        return x[:, self.clip_length :]


class ClipCapMlp(nn.Module):
    def __init__(self, embedding: int, width: int, prefix: int):
        super().__init__()
        hidden = width * prefix // 2
        self.model = nn.Sequential(nn.Linear(embedding, hidden), nn.Tanh(), nn.Linear(hidden, width * prefix))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class ClipCap(nn.Module):
    def __init__(self, project: nn.Module, language: GPT2LMHeadModel, prefix: int, *, normalised: bool = False):
        super().__init__()
        self.clip_project, self.gpt, self.prefix, self.normalised = project, language, prefix, normalised
        randomise(self)

    def start(self, embedding: torch.Tensor) -> torch.Tensor:
        if self.normalised:
            embedding = embedding / embedding.norm(2, -1, keepdim=True)
        return self.clip_project(embedding).view(len(embedding), self.prefix, -1)

    @torch.no_grad()
    def logits(self, embedding: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        words = self.gpt.transformer.wte(ids)
        return self.gpt(inputs_embeds=torch.cat([self.start(embedding), words], dim=1)).logits[:, self.prefix - 1 : -1]

    @torch.no_grad()
    def greedy(self, embedding: torch.Tensor, stops: tuple[int, ...], longest: int) -> list[int]:
        generated, tokens = self.start(embedding), []
        while len(tokens) < longest:
            tokens.append(self.gpt(inputs_embeds=generated).logits[0, -1].argmax().item())
            if tokens[-1] in stops:
                break
            generated = torch.cat([generated, self.gpt.transformer.wte(torch.tensor([[tokens[-1]]]))], dim=1)
        return tokens

    def save(self, file: Path) -> Path:
        torch.save(with_masks(self.state_dict(), "gpt"), file)
        return file


class Original(nn.Module):
    """Net of the original's head, with CLIP's vision tower as `ie.model`; `train_forward` without its softmax."""

    def __init__(self, tower: CLIPVisionModel, language: GPT2LMHeadModel, layers: int, prefix: int = 4):
        super().__init__()
        width = language.config.n_embd
        self.ie, self.mp, self.td = nn.Module(), nn.Module(), nn.Module()
        self.ie.model = getattr(tower, "vision_model", tower)
        layer = nn.TransformerEncoderLayer(width, nhead=16, dim_feedforward=4 * width, batch_first=True)
        self.mp.transformer_encoder = nn.TransformerEncoder(layer, layers)
        self.mp.mapper = nn.Linear(width, prefix * width)
        self.td.model, self.prefix, self.width = language, prefix, width
        randomise(self)
        self.eval()

    def mapped(self, embedding: torch.Tensor) -> torch.Tensor:
        return self.mp.mapper(self.mp.transformer_encoder(embedding))

    @torch.no_grad()
    def logits(self, embedding: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """As in training, image by image, because in training its images are mixed."""
        rows = []
        for image, caption in zip(embedding.split(1), ids, strict=True):
            x = torch.cat([self.mapped(image).view(self.prefix, self.width), self.td.model.transformer.wte(caption)])
            x = x + self.td.model.transformer.wpe(torch.arange(len(x)))
            rows.append(self.td.model(inputs_embeds=x.unsqueeze(0)).logits[0, self.prefix - 1 : -1])
        return torch.stack(rows)

    @torch.no_grad()
    def greedy(self, embedding: torch.Tensor, longest: int) -> tuple[list[int], list[torch.Tensor]]:
        bos = self.td.model.transformer.wte(torch.tensor(END)).unsqueeze(0)
        start = torch.cat([bos, self.mapped(embedding).view(self.prefix, self.width)])
        tokens, scores = [], []
        for _ in range(longest):
            x = torch.cat([start, self.td.model.transformer.wte(torch.tensor(tokens))]) if tokens else start
            x += self.td.model.transformer.wpe(torch.arange(len(x)))  # in place: at first this is `start` itself
            scores.append(self.td.model(inputs_embeds=x.unsqueeze(0)).logits[0, -1])
            tokens.append(scores[-1].argmax().item())
            if tokens[-1] == END:
                break
        return tokens, scores

    def save(self, file: Path, layout: str = "alone") -> Path:
        state = with_masks(self.state_dict(), "td.model")
        state["ie.model.embeddings.position_ids"] = torch.arange(5).unsqueeze(0)
        if layout == "module":
            state = {f"module.{name}": each for name, each in state.items()}
        content = {"alone": state, "module": state,
                   "checkpoint": {"epoch": 3, "model_state_dict": state, "tloss": [1.0]},
                   "lightning": {"state_dict": state, "hyper_parameters": {"lr": 0.1}}}[layout]  # fmt: skip
        torch.save(content, file)
        return file


@pytest.fixture
def clip(tmp_path):
    """Make a random CLIP vision tower with a projection of that width."""

    def make(projection: int) -> Path:
        tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 1}
        config = CLIPVisionConfig(**tower, image_size=32, patch_size=16, projection_dim=projection)
        CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "clip")
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
            tmp_path / "clip"
        )
        return tmp_path / "clip"

    return make


def clipcap(kind: str, embedding: int, layers: int = 2, width: int = 64, vocabulary: int = 257) -> ClipCap:
    torch.manual_seed(0)
    prefix, clip_length = (10, 10) if kind == "mlp" else (6, 4)
    project = (
        ClipCapMlp(embedding, width, prefix) if kind == "mlp"
        else ClipCapTransformer(embedding, width, prefix, clip_length, layers)
    )  # fmt: skip
    return ClipCap(project, gpt2(width, 2, vocabulary), prefix, normalised=embedding == 640).eval()


@pytest.mark.parametrize(("kind", "embedding"), [("mlp", 512), ("transformer", 512), ("transformer", 640)])
def test_clipcap_gives_the_same_logits_and_captions(kind, embedding, clip, tiny_gpt2, tmp_path):
    model = clipcap(kind, embedding)
    file = model.save(tmp_path / "weights.pt")
    folder = convert_clipcap(file, tmp_path / "captioner", clip=str(clip(embedding)), gpt2=str(tiny_gpt2))
    writer = CaptionWriter.load(folder)
    assert writer.captioner.config.mapper == ("mlp" if kind == "mlp" else "clipcap")
    embeddings, ids = 3 * torch.randn(5, embedding), torch.randint(0, 256, (5, 12))
    with torch.no_grad():
        ours = writer.captioner(ids, embeddings=embeddings).logits
    torch.testing.assert_close(ours, model.logits(embeddings, ids), atol=1e-4, rtol=1e-4)
    stop = writer.tokenizer(".")["input_ids"][0]
    assert writer.captioner.endings == [END, stop]
    theirs = [model.greedy(row, (stop, END), 20) for row in embeddings.split(1)]
    assert len({tuple(each) for each in theirs}) > 1
    written = writer.write(embeddings, Decoding(max_tokens=20))
    assert written == [caption.strip() for caption in writer.tokenizer.batch_decode(theirs, skip_special_tokens=True)]


def test_a_caption_of_clipcap_ends_with_its_full_stop(clip, tiny_gpt2, tmp_path):
    model = clipcap("mlp", 512)
    stop = 46 - 33  # "." among the bytes of the tests' tokenizer
    with torch.no_grad():
        model.gpt.transformer.ln_f.bias.add_(model.gpt.transformer.wte.weight[stop] * 5)
    folder = convert_clipcap(model.save(tmp_path / "w.pt"), tmp_path / "c", clip=str(clip(512)), gpt2=str(tiny_gpt2))
    writer = CaptionWriter.load(folder)
    assert writer.tokenizer(".")["input_ids"] == [stop]
    assert writer.write(torch.randn(2, 512)) == [".", "."]
    assert writer.candidates(torch.randn(1, 512), Decoding(beams=2))[0].caption == "."


def vision_tower(layers: int) -> CLIPVisionModel:
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": layers, "num_attention_heads": 1}
    return CLIPVisionModel(CLIPVisionConfig(**tower, hidden_act="quick_gelu", image_size=32, patch_size=16))


@pytest.mark.parametrize("layout", ["alone", "module", "checkpoint", "lightning"])
def test_the_original_gives_the_same_logits_and_captions(layout, tiny_gpt2, tmp_path):
    torch.manual_seed(1)
    tower = vision_tower(layers=2)
    model = Original(tower, gpt2(64, 3), layers=3)
    folder = convert_original(model.save(tmp_path / "model.ckpt", layout), tmp_path / "captioner", gpt2=str(tiny_gpt2))
    writer = CaptionWriter.load(folder)
    pixels = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        embeddings = model.ie.model(pixel_values=pixels).pooler_output
    ids = torch.randint(0, 256, (6, 12))
    with torch.no_grad():
        ours = writer.captioner(ids, pixel_values=pixels).logits
    torch.testing.assert_close(ours, model.logits(embeddings, ids), atol=1e-4, rtol=1e-4)

    for row in embeddings.split(1):
        theirs, scores = model.greedy(row, 20)
        output = writer.captioner.generate(
            row, max_new_tokens=20, return_dict_in_generate=True, output_logits=True, output_scores=True
        )
        assert output.sequences[0].tolist() == theirs
        for step, expected in enumerate(scores):
            torch.testing.assert_close(output.logits[step][0], expected, atol=1e-4, rtol=1e-4)
    together = writer.captioner.generate(embeddings, max_new_tokens=20)
    assert together[0].tolist()[:3] == model.greedy(embeddings[:1], 3)[0]
    candidates = writer.candidates(embeddings[:1], Decoding(beams=3))
    assert len(candidates) == 3


def test_what_the_original_does_once_more_changes_its_captions(tiny_gpt2, tmp_path):
    """The test above would be worth nothing if the positions and the beginning made no difference."""
    torch.manual_seed(1)
    tower = vision_tower(layers=1)
    model = Original(tower, gpt2(64, 3), layers=2)
    writer = CaptionWriter.load(convert_original(model.save(tmp_path / "m.pt"), tmp_path / "c", gpt2=str(tiny_gpt2)))
    embeddings = torch.randn(20, 64)
    right = writer.captioner.generate(embeddings, max_new_tokens=8)
    assert writer.captioner.longest_caption == 96 - 4 - 1
    writer.captioner.config.original_start = False
    assert not right.equal(writer.captioner.generate(embeddings, max_new_tokens=8))


@pytest.mark.parametrize("kind", ["clipcap-mlp", "clipcap-transformer", "original"])
def test_at_the_published_sizes(kind, tiny_gpt2, tmp_path, clip):
    """GPT-2 small's width and depth, CLIP ViT-B/32's, six and eight layers of mapping module; a small vocabulary."""
    torch.manual_seed(2)
    language = gpt2(768, 12)
    ids = torch.randint(0, 256, (2, 10))
    if kind == "original":
        tower = CLIPVisionModel(CLIPVisionConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                                 num_attention_heads=12, image_size=224, patch_size=32,
                                                 hidden_act="quick_gelu"))  # fmt: skip
        model = Original(tower, language, layers=6)
        file, embeddings = model.save(tmp_path / "model.pt"), torch.randn(2, 768)
        writer = CaptionWriter.load(convert_original(file, tmp_path / "captioner", gpt2=str(tiny_gpt2)))
        assert writer.processor.crop_size["height"] == 224
        theirs = [model.greedy(row, 10)[0] for row in embeddings.split(1)]
    else:
        project = ClipCapMlp(512, 768, 10) if kind == "clipcap-mlp" else ClipCapTransformer(640, 768, 40, 40, layers=8)
        width = 512 if kind == "clipcap-mlp" else 640
        model = ClipCap(project, language, 10 if kind == "clipcap-mlp" else 40, normalised=width == 640).eval()
        file, embeddings = model.save(tmp_path / "weights.pt"), torch.randn(2, width)
        folder = convert_clipcap(file, tmp_path / "captioner", clip=str(clip(width)), gpt2=str(tiny_gpt2))
        writer = CaptionWriter.load(folder)
        theirs = [model.greedy(row, tuple(writer.captioner.endings), 10) for row in embeddings.split(1)]
    with torch.no_grad():
        ours = writer.captioner(ids, embeddings=embeddings).logits
    torch.testing.assert_close(ours, model.logits(embeddings, ids), atol=1e-4, rtol=1e-4)
    for row, tokens in zip(embeddings.split(1), theirs, strict=True):
        assert writer.captioner.generate(row, max_new_tokens=10)[0].tolist() == tokens


def test_files_of_another_kind_are_refused_in_one_line(clip, tiny_gpt2, tmp_path):
    model = clipcap("mlp", 640)
    file, encoder, out = model.save(tmp_path / "weights.pt"), clip(512), tmp_path / "out"

    def refused(convert, *given, **named) -> str:
        with pytest.raises(UserError) as error:
            convert(*given, **named)
        assert "\n" not in str(error.value)
        assert not out.exists()
        return str(error.value)

    assert "takes embeddings of 640 numbers, those of CLIP RN50x4" in refused(
        convert_clipcap, file, out, gpt2=str(tiny_gpt2)
    )
    said = refused(convert_clipcap, file, out, gpt2=str(tiny_gpt2), clip=str(encoder))
    assert f"takes embeddings of 640 numbers, but {encoder} projects to 512" in said
    assert "is no checkpoint of the original project" in refused(convert_original, file, out, gpt2=str(tiny_gpt2))
    assert "is no file; give the file of published weights" in refused(convert_clipcap, tmp_path / "no.pt", out)
    (tmp_path / "text.pt").write_text("hello")
    assert "holds more than tensors, or is damaged" in refused(convert_clipcap, tmp_path / "text.pt", out)

    class Harmful:
        def __reduce__(self):
            return open, (str(tmp_path / "made"), "w")

    torch.save({"clip_project.prefix_const": torch.zeros(2, 2), "hyper_parameters": Harmful()}, tmp_path / "harm.ckpt")
    said = refused(convert_clipcap, tmp_path / "harm.ckpt", out)
    assert "no code of a checkpoint is run here; if you trust where it is from, save its state dict alone" in said
    assert not (tmp_path / "made").exists()

    state = torch.load(file, weights_only=True)
    for change, says in (
        ({"gpt.transformer.wte.weight": None}, "lacks the tensor transformer.wte.weight"),
        ({"gpt.transformer.ln_f.weight": None}, "does not fit its kind (Missing key"),
        ({"gpt.transformer.h.0.ln_1.weight": torch.full((64,), math.nan)}, "that are not finite"),
        ({"gpt.lm_head.weight": torch.zeros(257, 64)}, "has an output layer of its own"),
        ({"clip_project.model.0.weight": torch.zeros(3)}, "has a hidden.0.weight of shape [3], which needs 2 dimen"),
        ({"gpt.transformer.wte.weight": torch.zeros(0, 64)}, "has a transformer.wte.weight of shape [0, 64]"),
        (
            dict.fromkeys(name for name in state if ".h." in name),
            "lacks layers, whose tensors begin with tran",
        ),
        ({"adapter.weight": torch.zeros(2, 2)}, "holds 1 tensors that are no part of ClipCap, such as adapter.weight"),
        ({"clip_project.model.0.bias": torch.zeros(1).expand(10**9)}, "bytes of tensors, but is a file of"),
    ):
        changed = {name: each for name, each in (state | change).items() if each is not None}
        torch.save(changed, tmp_path / "changed.pt")
        assert says in refused(convert_clipcap, tmp_path / "changed.pt", out, gpt2=str(tiny_gpt2), clip=str(encoder))
    deeper = torch.load(clipcap("mlp", 512).save(tmp_path / "512.pt"), weights_only=True)
    torch.save(deeper | {"clip_project.model.4.weight": torch.zeros(2, 2)}, tmp_path / "deeper.pt")
    said = refused(convert_clipcap, tmp_path / "deeper.pt", out, gpt2=str(tiny_gpt2), clip=str(encoder))
    assert "does not fit its kind (Unexpected key" in said


def test_a_folder_with_something_else_is_never_replaced(clip, tiny_gpt2, tmp_path):
    model, encoder = clipcap("mlp", 512), clip(512)
    file, out = model.save(tmp_path / "weights.pt"), tmp_path / "out"
    where = {"gpt2": str(tiny_gpt2), "clip": str(encoder)}
    convert_clipcap(file, out, **where)
    convert_clipcap(file, out, **where)  # the same again
    assert "ClipCap" in (out / "README.md").read_text()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"already holds something else, such as notes\.txt"):
        convert_clipcap(file, out, **where)


@pytest.mark.parametrize("mapper", ["clipcap", "original"])
def test_a_published_mapper_trains(mapper):
    """A mapper as published is a mapper of ours: from a new one, the loss of a few captions falls."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1)
    text = GPT2Config(
        vocab_size=300, n_positions=64, n_embd=64, n_layer=2, n_head=1, eos_token_id=299, bos_token_id=299
    )
    captioner = Captioner(CaptionerConfig(vision, text, mapper=mapper, mapper_layers=2, mapper_heads=8, dropout=0.0))
    embeddings, ids = torch.randn(4, 32), torch.randint(0, 299, (4, 6))
    captioner.prepare_for(torch.randn(100, 32))
    captioner.gpt2.requires_grad_(False)
    optimizer = torch.optim.Adam(captioner.mapper.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        losses.append(captioner(ids, embeddings=embeddings, labels=ids).loss)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.2


def test_a_converted_captioner_trains_further_and_stays_what_it_is(data, tiny_gpt2, tmp_path):
    torch.manual_seed(1)
    model = Original(vision_tower(layers=1), gpt2(64, 2), layers=1)
    folder = convert_original(model.save(tmp_path / "m.pt"), tmp_path / "c", gpt2=str(tiny_gpt2))
    config = chosen_config("tiny", {"start_from": str(folder), "epochs": 1, "batch_size": 8})
    assert (config.mapper, config.mapper_heads, config.prefix_length) == ("original", 16, 4)
    cache = open_cache(data, config, tmp_path / "cache")
    run = train(config, data.captions, cache.folder, out=tmp_path / "run", max_steps=2)
    assert newest_step(run.checkpoints) == 2
    config = json.loads((run.captioner / "config.json").read_text()) if run.captioner.exists() else {}
    assert config.get("original_start", True) is True


def test_the_folder_keeps_what_is_special_about_it(clip, tiny_gpt2, tmp_path):
    folder = convert_clipcap(
        clipcap("transformer", 512).save(tmp_path / "w.pt"), tmp_path / "c", clip=str(clip(512)), gpt2=str(tiny_gpt2),
        normalised=True,
    )  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert (config["mapper"], config["prefix_length"], config["clip_length"]) == ("clipcap", 6, 4)
    assert config["normalised"] is True
    assert config["pooling"] == "projected"
