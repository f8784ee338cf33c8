"""The small pair: it can be rebuilt, its folders are ordinary, its report is true, and the shipped pair works."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModel,
    GPT2LMHeadModel,
)

from helpers.captions.read import read_text
from helpers.captions.splits import split_by_image
from helpers.data.dataset import WORLD_IMAGES
from helpers.data.scenes import draw_world, scenes_of_world
from helpers.errors import UserError
from helpers.models.loading import load_gpt2
from helpers.pretraining.data import pretraining_scenes, read_pictures
from helpers.pretraining.pretrain import pretrain, pretrain_gpt2
from helpers.pretraining.recipe import RECIPES, Recipe
from helpers.pretraining.small_clip import build_clip, build_processor, embed_pictures, pixel_values, retrieval
from helpers.pretraining.small_gpt2 import END_OF_TEXT, train_tokenizer

TINY = Path(__file__).parents[2] / "helpers" / "tiny"
SMALL = {"clip_steps": 60, "clip_batch": 32, "gpt2_steps": 25, "gpt2_batch": 8, "layers": 1, "gpt2_layers": 1}


def read_world(folder: Path, held_out: int) -> pd.DataFrame:
    """Return the captions of a drawn world, with its last pictures held out."""
    table = pd.read_csv(folder / "results.csv", sep="|", skipinitialspace=True)
    table.columns = ["image_name", "comment_number", "caption"]
    last = sorted(set(table.image_name))[-held_out:]
    return table.assign(split=table.image_name.isin(last).map({True: "test", False: "train"}))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return draw_world(tmp_path_factory.mktemp("world"), images=240, seed=5)


@pytest.fixture(scope="module")
def rebuilt(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("pair")
    captions = read_world(world, held_out=60)
    report = pretrain(world / "flickr30k_images", captions, out, facts=world / "facts.json", **SMALL)
    return out, report


def test_a_small_rebuild_learns_and_says_so(rebuilt):
    out, report = rebuilt
    assert json.loads((out / "report.json").read_text()) == report
    assert report["clip_pictures"] == 180
    assert report["held_out_pictures"] == 60
    assert report["gpt2_captions"] == 180 * 5
    assert report["left_out"] == {}
    assert report["clip_last_loss"] < 0.7 * report["clip_first_loss"]
    assert report["gpt2_last_loss"] < 0.7 * report["gpt2_first_loss"]
    assert report["held_out_r_at_10"] > 2 * report["held_out_chance_r_at_10"]
    assert report["held_out_facts_right"]["background"] > 0.6
    assert report["recipe"]["clip_steps"] == 60


def test_a_rebuild_leaves_two_ordinary_folders(rebuilt):
    out, report = rebuilt
    clip, notes = CLIPModel.from_pretrained(out / "clip", output_loading_info=True)
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]
    vision, notes = CLIPVisionModel.from_pretrained(out / "clip", output_loading_info=True)
    assert not notes["missing_keys"]
    gpt2 = GPT2LMHeadModel.from_pretrained(out / "gpt2")
    assert clip.num_parameters() == report["clip_parameters"]
    assert vision.config.hidden_size == 128
    assert (
        gpt2.config.eos_token_id == gpt2.config.bos_token_id == AutoTokenizer.from_pretrained(out / "gpt2").eos_token_id
    )
    assert not list(out.rglob("*.bin"))
    assert not list(out.glob(".*"))
    assert len({path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()}) == 1


def test_the_report_is_what_the_saved_pair_does(rebuilt, world):
    out, report = rebuilt
    clip = CLIPModel.from_pretrained(out / "clip")
    assert retrieval_of(out / "clip", clip, world, 60)["r_at_10"] == pytest.approx(report["held_out_r_at_10"], abs=0.01)


def retrieval_of(folder: Path, clip: CLIPModel, world: Path, held_out: int) -> dict[str, float]:
    """Return the retrieval of held-out pictures, with the processor and tokenizer of the folder."""
    processor, tokenizer = CLIPImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    captions = read_world(world, held_out)
    captions = captions[captions.split == "test"]
    names = sorted(set(captions.image_name))
    pictures = [Image.open(world / "flickr30k_images" / name) for name in names]
    with torch.no_grad():
        values = processor(pictures, return_tensors="pt")["pixel_values"]
        pooled = clip.vision_model(pixel_values=values).pooler_output
    end = tokenizer.eos_token_id
    texts = [list(captions[captions.image_name == name].caption) for name in names]
    return retrieval(clip, pooled, [[row[: row.index(end)] for row in tokenizer(five)["input_ids"]] for five in texts])


@pytest.mark.parametrize("kind", ["clip", "gpt2"])
def test_both_tokenizers_give_back_any_text_with_one_special_token(rebuilt, kind):
    tokenizer = AutoTokenizer.from_pretrained(rebuilt[0] / kind)
    text = "An ünusual caption, 猫 and <tabs>\t: 7 o'clock"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.all_special_tokens == [END_OF_TEXT]
    with_ends = tokenizer(["a red circle", "a red circle on plain gray"], padding=kind == "clip")["input_ids"]
    if kind == "clip":
        assert [row.count(tokenizer.eos_token_id) for row in with_ends][1] == 1
        assert len(with_ends[0]) == len(with_ends[1])
    else:
        assert tokenizer.eos_token_id not in with_ends[0]
        assert tokenizer.pad_token is None


def test_the_text_tower_pools_at_the_first_end_of_text(rebuilt):
    tokenizer, tower = (
        AutoTokenizer.from_pretrained(rebuilt[0] / "clip"),
        CLIPTextModel.from_pretrained(rebuilt[0] / "clip"),
    )
    alone = tokenizer(["two red stars"], return_tensors="pt")
    padded = tokenizer(
        ["two red stars", "two red stars on a black background with more"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        first = tower(input_ids=alone["input_ids"]).pooler_output
        second = tower(input_ids=padded["input_ids"]).pooler_output
        masked = tower(**{name: padded[name] for name in ("input_ids", "attention_mask")}).pooler_output
    torch.testing.assert_close(first[0], second[0])
    torch.testing.assert_close(first[0], masked[0])


@pytest.mark.parametrize("size", [64, 96])
def test_training_sees_what_the_processor_yields(rebuilt, world, tmp_path, size):
    vision = CLIPVisionModel.from_pretrained(rebuilt[0] / "clip").eval()
    clip = CLIPModel.from_pretrained(rebuilt[0] / "clip")
    processor = CLIPImageProcessor.from_pretrained(rebuilt[0] / "clip")  # for 64 pixels
    picture = Image.open(world / "flickr30k_images" / "scene-00000.png")
    picture.resize((size * 2, size)).save(tmp_path / "wide.png")  # needs cropping
    picture.save(tmp_path / "square.png")
    names, pictures, left_out = read_pictures(tmp_path, ["square.png", "wide.png"], processor)
    assert (names, left_out, pictures.dtype) == (["square.png", "wide.png"], {}, torch.uint8)
    expected = processor([Image.open(tmp_path / name) for name in names], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixel_values(pictures, processor), expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        pooled = vision(pixel_values=expected).pooler_output
    torch.testing.assert_close(embed_pictures(clip, processor, pictures), pooled, atol=1e-4, rtol=1e-4)


def test_the_recipe_for_photographs_works_on_any_pictures_and_counts_what_it_cannot_read(world, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    captions = read_world(world, held_out=60)
    names = sorted(set(captions.image_name))
    names = names[:30] + names[-12:]
    for number, name in enumerate(names):
        picture = Image.open(world / "flickr30k_images" / name).resize((160 + number, 120))
        picture.save(images / name)
    (images / names[0]).write_bytes(b"no picture")
    (images / names[1]).unlink()
    text = tmp_path / "text.txt"
    text.write_text("A man in a blue shirt.\nTwo dogs run over the grass.\n\n" * 20)
    small = SMALL | {"clip_steps": 2, "gpt2_steps": 2, "vocabulary": 300}
    few = captions[captions.image_name.isin(names)]
    report = pretrain(images, few, tmp_path / "pair", preset="photos", text=text, **small)
    assert report["clip_pictures"] == 28
    assert sorted(report["left_out"]) == names[:2]
    assert report["gpt2_captions"] == 40
    assert report["held_out_pictures"] == 12
    assert CLIPImageProcessor.from_pretrained(tmp_path / "pair" / "clip").crop_size["height"] == 96


def test_the_seed_decides_alone_and_the_random_state_is_left_alone(world, tmp_path):
    captions = read_world(world, held_out=60)
    few = captions[captions.image_name.isin(sorted(set(captions.image_name))[-80:])]
    weights = []
    for run, (state, seed) in enumerate([(1, 0), (2, 0), (2, 1)]):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        values = SMALL | {"clip_steps": 2, "gpt2_steps": 2, "seed": seed}
        pretrain(world / "flickr30k_images", few, tmp_path / str(run), **values)
        assert torch.equal(torch.get_rng_state(), before)
        weights.append([(tmp_path / str(run) / part / "model.safetensors").read_bytes() for part in ("clip", "gpt2")])
    assert weights[0] == weights[1]
    assert weights[0][0] != weights[2][0]
    assert weights[0][1] != weights[2][1]


def test_the_shipped_pair_loads_and_finds_pictures_it_has_never_seen(tmp_path):
    world = draw_world(tmp_path, images=200, seed=77)
    clip = CLIPModel.from_pretrained(TINY / "clip")
    found = retrieval_of(TINY / "clip", clip, world, held_out=200)
    assert found["r_at_10"] > 0.9
    assert found["median_rank"] <= 2
    gpt2, tokenizer = GPT2LMHeadModel.from_pretrained(TINY / "gpt2"), AutoTokenizer.from_pretrained(TINY / "gpt2")
    start = torch.tensor([[tokenizer.eos_token_id]])
    written = gpt2.generate(start, max_new_tokens=40, do_sample=False, pad_token_id=tokenizer.eos_token_id)[0]
    assert written[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(written, skip_special_tokens=True).endswith(".")


def test_the_shipped_pair_is_small_and_its_readme_gives_its_figures():
    assert sum(file.stat().st_size for file in TINY.rglob("*")) < 7_000_000
    report, readme = json.loads((TINY / "report.json").read_text()), (TINY / "README.md").read_text()
    assert f"{report['held_out_r_at_1']:.3f}" in readme
    assert f"{report['held_out_facts_right']['all']:.3f}" in readme
    assert f"{report['gpt2_held_out_nll_per_token']:.3f}" in readme
    recipe = {"vary": RECIPES["drawn"].vary} | report["recipe"]
    assert all(getattr(RECIPES["drawn"], name) == value for name, value in recipe.items())


def test_its_readme_says_how_many_scenes_of_the_captioners_world_the_pretraining_had_shown():
    scenes, before = scenes_of_world(images=WORLD_IMAGES, seed=0), pretraining_scenes()
    splits = split_by_image(pd.DataFrame({"image_name": list(scenes)})).set_index("image_name").split
    test, seen = ([scenes[name] for name in splits.index[splits == split]] for split in ("test", "train"))
    new = [scene for scene in test if scene not in set(seen)]
    known, new_known = (sum(scene in before for scene in some) for some in (test, new))
    readme = " ".join((TINY / "README.md").read_text().split())
    assert f"show {len(before):,} different scenes, and {known} of the {len(test)} test pictures" in readme
    assert f"as do {new_known} of the {len(new)} whose scene no training picture" in readme
    front = " ".join((TINY.parents[1] / "README.md").read_text().split())
    assert f"had shown {known} of these {len(test)} scenes in other pictures; of [the {len(new) - new_known}]" in front


def test_text_is_read_from_lines_and_from_the_training_rows_of_a_table(tmp_path):
    (tmp_path / "lines.txt").write_text("one\n\n  two \n", encoding="utf-8")
    assert read_text(tmp_path / "lines.txt") == ["one", "two"]
    table = 'image_name,split,comment\na.jpg,train,"One, two"\nb.jpg,test,three\nc.jpg,restval,NA\nd.jpg,train,\n'
    with gzip.open(tmp_path / "table.csv.gz", "wt") as file:
        file.write(table)
    assert read_text(tmp_path / "table.csv.gz") == ["One, two", "NA"]


@pytest.mark.parametrize("name", ["captions.txt", "CAPTIONS.CSV", "captions"])
@pytest.mark.parametrize(
    "content",
    [
        "image,caption\na.jpg,A dog\nb.jpg,Two cats\n", "Image Name;Caption\na.jpg;A dog\nb.jpg;Two cats\n",
        "caption\nA dog\nTwo cats\n", "a.jpg#0\tA dog\nb.jpg#0\tTwo cats\n",
        '{"image": "a.jpg", "caption": "A dog"}\n{"image": "b.jpg", "caption": "Two cats"}\n',
    ],
)  # fmt: skip
def test_the_content_of_a_text_says_that_it_is_a_table_and_not_the_name(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_text(tmp_path / name) == ["A dog", "Two cats"]


@pytest.mark.parametrize("line", ["Raw, uncooked fish on a plate", "Text on a wall; caption below", "a dog, a caption"])
def test_a_caption_in_the_first_line_is_no_header(tmp_path, line):
    (tmp_path / "lines.txt").write_text(f"{line}\na dog\n", encoding="utf-8")
    assert read_text(tmp_path / "lines.txt") == [line, "a dog"]


def test_a_text_with_two_columns_of_captions_is_refused_under_any_name(tmp_path):
    (tmp_path / "captions.txt").write_text("image,caption,text\na.jpg,A dog,B\n", encoding="utf-8")
    with pytest.raises(UserError, match="more than one column that may hold the captions"):
        read_text(tmp_path / "captions.txt")


def test_what_is_held_out_is_not_read_from_a_text(tmp_path):
    rows = [("a.jpg", "A dog runs.", "train"), ("b.jpg", "A cat sits.", "val"), ("c.jpg", "A dog runs.", "test")]
    captions = pd.DataFrame(rows, columns=["image_name", "caption", "split"])
    (tmp_path / "lines.txt").write_text("a cat sits\nA dog runs.\nA bird\n", encoding="utf-8")
    table = "image,caption\na.jpg,A dog runs.\nphotos/b.jpg,The cat of b\nd.jpg,a cat  sits .\nd.jpg,Another\n"
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    own = (
        "image,caption,split\nb.jpg,One,train\nd.jpg,A cat sits.,train\ne.jpg,Two,val\n"  # says of d.jpg what it is for
    )
    (tmp_path / "own.csv").write_text(own, encoding="utf-8")
    for name, kept, said in (
        (
            "lines.txt",
            ["A dog runs.", "A bird"],
            "1 texts of .*lines.txt are of held-out pictures and are left out, such",
        ),
        ("table.csv", ["A dog runs.", "Another"], "2 texts of .*table.csv are of held-out pictures"),
        ("own.csv", ["A cat sits."], "1 texts of .*own.csv are of held-out pictures and are left out, such as 'One'"),
    ):
        with pytest.warns(UserWarning, match=said):
            assert read_text(tmp_path / name, captions=captions) == kept
    (tmp_path / "held.txt").write_text("A cat sits.\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"held.txt holds captions of held-out pictures only: give other captions"):
        read_text(tmp_path / "held.txt", captions=captions)


def test_gpt2_does_not_learn_from_a_text_what_it_is_measured_on(world, tmp_path):
    captions = read_world(world, held_out=60)
    captions[["image_name", "caption"]].to_csv(tmp_path / "text.csv", index=False)
    short = {**SMALL, "clip_steps": 2, "gpt2_steps": 2}
    with pytest.warns(UserWarning, match=f"{(captions.split != 'train').sum()} texts of .*text.csv are of held-out"):
        report = pretrain(world / "flickr30k_images", captions, tmp_path / "out", text=tmp_path / "text.csv", **short)
    assert report["gpt2_captions"] == (captions.split == "train").sum()


def test_a_fact_that_only_a_held_out_picture_has_is_a_class_too(world, tmp_path):
    truth = json.loads((world / "facts.json").read_text())
    captions = read_world(world, held_out=60)
    truth[captions.image_name[captions.split == "test"].iloc[0]]["shape"] = "zigzag"  # the last of the sorted shapes
    (tmp_path / "facts.json").write_text(json.dumps(truth))
    short = {**SMALL, "clip_steps": 2, "gpt2_steps": 2}
    report = pretrain(world / "flickr30k_images", captions, tmp_path, facts=tmp_path / "facts.json", **short)
    assert report["held_out_facts_right"]["shape"] < 1


def test_gpt2_alone_learns_from_text_in_lower_case(tmp_path):
    rows = [("A Dog runs .", "train"), ("Two dogs sleep.", "train"), ("A cat sits", "val"), ("NA", "test")] * 30
    pd.DataFrame(rows, columns=["caption", "split"]).to_csv(tmp_path / "text.csv", index=False)
    quick = {"gpt2_steps": 30, "gpt2_batch": 4, "gpt2_width": 32, "gpt2_layers": 1, "gpt2_dropout": 0.0}
    report = pretrain_gpt2(tmp_path / "text.csv", tmp_path / "out", **quick)
    assert report["gpt2_captions"] == 60  # the rows for training
    assert report["gpt2_last_loss"] < report["gpt2_first_loss"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    _, tokenizer = load_gpt2(tmp_path / "out" / "gpt2")
    ids = tokenizer(["A Dog runs .", "a dog runs", "U.S. flags wave"], add_special_tokens=False)["input_ids"]
    assert ids[0] == ids[1]
    assert tokenizer.decode(ids[2]) == "u.s. flags wave"
    (tmp_path / "lines.txt").write_text("".join(f"a dog number {number}\n" for number in range(40)))
    assert pretrain_gpt2(tmp_path / "lines.txt", tmp_path / "lines", **quick)["gpt2_captions"] == 38  # 2 are held out
    (tmp_path / "one.txt").write_text("a dog\n")
    with pytest.raises(UserError, match=r"has 1 captions, but at least 2 are needed"):
        pretrain_gpt2(tmp_path / "one.txt", tmp_path / "one", **quick)


def test_an_unusable_input_is_named(world, tmp_path):
    captions = read_world(world, held_out=60)
    images = world / "flickr30k_images"
    with pytest.raises(UserError, match="preset is 'big'"):
        pretrain(images, captions, tmp_path, preset="big")
    with pytest.raises(UserError, match="no field colour"):
        pretrain(images, captions, tmp_path, colour=1)
    with pytest.raises(UserError, match="text_width is 64"):
        pretrain(images, captions, tmp_path, preset="photos", text_width=64)
    with pytest.raises(UserError, match="0 pictures to hold out"):
        pretrain(images, captions.assign(split="train"), tmp_path)
    with pytest.raises(UserError, match="does not give the facts"):
        pretrain(images, captions, tmp_path, facts=world / "world.json")
    with pytest.raises(UserError, match="does not exist; give the path of a CSV file or another kind"):
        pretrain(images, captions, tmp_path, text=tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match="neither as text with one caption per line nor as a CSV"):
        read_text(tmp_path / "latin.txt")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="begins with 'a,b', where a header with a column named comment or caption"):
        read_text(tmp_path / "other.csv")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="holds no captions"):
        read_text(tmp_path / "empty.txt")
    with pytest.raises(UserError, match="none of the 2 pictures"):
        read_pictures(tmp_path, ["a.png", "b.png"], build_processor(64))


def test_clip_refuses_the_one_id_at_which_it_would_not_pool():
    assert train_tokenizer(["a caption"], 300).eos_token_id == 0
    with pytest.raises(ValueError, match="end_of_text is 2"):
        build_clip(Recipe(), vocabulary=300, end_of_text=2)
