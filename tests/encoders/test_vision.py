"""One interface over image encoders of every kind: pooled, patches, projected; in a captioner, saved and loaded."""

import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessor,
    CLIPImageProcessor,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from helpers.encoders.efficientnet import EfficientNetLiteConfig, EfficientNetLiteModel
from helpers.errors import UserError
from helpers.models.loading import load_encoder
from helpers.models.writer import CaptionWriter
from helpers.presets import preset

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
TOKENS = {"clip": 17, "siglip": 16, "dinov2": 17, "vit": 17, "efficientnet": 1}  # of a picture of 32 pixels


def build(kind: str):
    """A random model as the hub has one, and its image processor; pictures of 32 pixels."""
    if kind == "siglip":
        vision, text = {**SMALL, "image_size": 32, "patch_size": 8}, {**SMALL, "vocab_size": 99}
        return SiglipModel(SiglipConfig(vision_config=vision, text_config=text)), SiglipImageProcessor(**SQUARE)
    if kind == "dinov2":  # its checkpoints have position embeddings for larger pictures than their processors make
        config = Dinov2Config(**{**SMALL, "mlp_ratio": 2}, image_size=56, patch_size=8)
        return Dinov2Model(config), BitImageProcessor(**CROPPED)
    if kind == "vit":
        return ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=8)), ViTImageProcessor(**SQUARE)
    config = EfficientNetLiteConfig(image_size=32, hidden_size=48)
    return EfficientNetLiteModel(config), CLIPImageProcessor(**CROPPED)


@pytest.fixture(params=["clip", "siglip", "dinov2", "vit", "efficientnet"])
def encoder(request, tiny_clip, tmp_path):
    """The kind of an image encoder, and its folder."""
    if request.param == "clip":
        return "clip", tiny_clip
    torch.manual_seed(0)
    for part in build(request.param):
        part.save_pretrained(tmp_path / request.param)
    return request.param, tmp_path / request.param


@pytest.fixture
def pictures() -> list[Image.Image]:
    torch.manual_seed(1)
    sides = ((40, 50), (32, 32), (90, 33))
    return [Image.fromarray((torch.rand(*side, 3) * 255).byte().numpy()) for side in sides]


def test_pooled_and_patches_have_their_shapes(encoder, pictures):
    kind, folder = encoder
    width = 48 if kind == "efficientnet" else 32
    for pooling, shape in (("pooled", (width,)), ("patches", (TOKENS[kind], width))):
        loaded = load_encoder(folder, pooling=pooling)
        assert loaded.shape == shape
        assert loaded.width == width
        embeddings = loaded.embed(pictures)
        assert embeddings.shape == (3, *shape)
        assert embeddings.isfinite().all()
        assert not any(parameter.requires_grad for parameter in loaded.vision.parameters())
        alone = torch.cat([loaded.embed([picture]) for picture in pictures])
        torch.testing.assert_close(alone, embeddings, atol=1e-4, rtol=1e-4)


def test_only_clip_has_a_projection(encoder, pictures):
    kind, folder = encoder
    if kind == "clip":
        projected = load_encoder(folder, pooling="projected")
        assert projected.shape == (16,)
        assert projected.embed(pictures).shape == (3, 16)
        assert projected.fingerprint()["pooling"] != load_encoder(folder).fingerprint()["pooling"]
    else:
        with pytest.raises(UserError, match=r"pooling is 'projected', but a model of type .* has no projection"):
            load_encoder(folder, pooling="projected")


def test_only_a_convolutional_encoder_has_stages(encoder, pictures):
    kind, folder = encoder
    if kind != "efficientnet":
        with pytest.raises(UserError, match=r"pooling is 'stages', but a model of type .* has no stages"):
            load_encoder(folder, pooling="stages")
        return
    loaded, pooled = load_encoder(folder, pooling="stages"), load_encoder(folder)
    assert loaded.shape == (16 + 24 + 40 + 80 + 112 + 192 + 320 + 48,)
    embeddings = loaded.embed(pictures)
    torch.testing.assert_close(embeddings[:, -48:], pooled.embed(pictures))  # the last of them is the pooled output
    first = loaded.vision.blocks[0](loaded.vision.stem(loaded.pixel_values(pictures)))
    torch.testing.assert_close(embeddings[:, :16], first.mean(dim=(2, 3)))
    assert loaded.fingerprint()["pooling"] != pooled.fingerprint()["pooling"]


@pytest.mark.parametrize("pooling", ["pooled", "patches"])
def test_a_captioner_with_it_is_saved_and_loaded_as_it_was(encoder, pictures, pooling, tmp_path):
    _, folder = encoder
    mapper = "queries" if pooling == "patches" else "encoder"
    config = preset("tiny").with_values(clip=str(folder), pooling=pooling, mapper=mapper, mapper_layers=1)
    writer = CaptionWriter.assemble(config, load_encoder(folder, pooling=pooling))
    embeddings = writer.embed(pictures)
    writer.captioner.prepare_for(embeddings)
    writer.captioner.eval()
    writer.save(tmp_path / "captioner")
    again = CaptionWriter.load(tmp_path / "captioner")
    assert again.captioner.embedding_shape == writer.captioner.embedding_shape
    assert torch.equal(again.embed(pictures), embeddings)
    assert again.write(embeddings) == writer.write(embeddings)
    pixel_values = again.clip().pixel_values(pictures)
    assert torch.equal(again.captioner.generate(pixel_values=pixel_values), again.captioner.generate(embeddings))
    assert again.clip().fingerprint() == {**writer.clip().fingerprint(), "name": "captioner"}


def test_a_processor_of_another_size_is_refused(encoder, tmp_path):
    kind, folder = encoder
    if kind == "dinov2":
        BitImageProcessor(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30}).save_pretrained(folder)
    elif kind != "clip":
        other = SiglipImageProcessor if kind == "siglip" else ViTImageProcessor
        other(size={"height": 40, "width": 40}).save_pretrained(folder)
    else:
        return  # test_loading.py has it
    with pytest.raises(UserError, match=r"makes pictures of .* pixels, but its tower takes \d+ pixels both ways"):
        load_encoder(folder)
