"""People and things in captions against the references: what most of them name, and what none of them names."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cli import main
from helpers.evaluation.evaluate import evaluate, over_trainings
from helpers.evaluation.people import AGE, GENDER, UNCLEAR, add_people_scores, agreed, confusion, kinds, people_lines
from helpers.evaluation.scores import NAMES, Scores, summary_lines
from helpers.models.decoding import Decoding
from helpers.words.people import people_named

NOTHING = Scores({}, {}, {}, "none")
PICTURES = {  # a caption, and its references
    "right": ("a woman sits", ["a woman sits", "the lady", "two people"]),
    "wrong": ("a man on a bench", ["a woman", "a girl sits", "a player"]),
    "guessed": ("a boy in a hat", ["a child", "a man", "a kid in a cap"]),
    "missed": ("a dog", ["a man with a dog", "a man", "a man"]),
    "invented": ("a man with a dog", ["a puppy", "a brown dog", "a dog runs"]),
    "between": ("a cat", ["a man with a cat", "a cat", "a cat"]),
}


def measured(pictures=PICTURES) -> Scores:
    written, references = zip(*pictures.values(), strict=True)
    return add_people_scores(NOTHING, written=written, references=references)


@pytest.mark.parametrize(
    ("references", "gender", "age"),
    [
        (["a woman", "a lady", "a person"], "woman", "adult"),
        (["a woman", "a girl", "a player"], "woman", "person"),
        (["a woman", "a man", "a child"], "person", "adult"),
        (["a man and a woman"] * 2 + ["a man"], "woman and man", "adult"),
        (["a dog", "a cat"], "nobody", "nobody"),
        (["a dog", "a man"], UNCLEAR, UNCLEAR),
        (["a boy"], "man", "child"),
    ],
)
def test_more_than_half_of_the_references_decide(references, gender, age):
    named = [people_named(text) for text in references]
    assert (agreed(named, GENDER), agreed(named, AGE)) == (gender, age)


def test_shares_by_hand():
    scores = measured()
    values = {name: score.value for name, score in scores.measured.items()}
    assert values == pytest.approx({
        "women_called_men": 1 / 2, "men_called_women": 0, "persons_given_a_gender": 1, "children_called_adults": 0,
        "adults_called_children": 0, "people_invented": 1, "people_missed": 1 / 4, "objects_invented": 1 / 6,
        "object_mentions_invented": 1 / 5, "objects_invented_by_references": 2 / 18,
    })  # fmt: skip
    assert values.keys() <= NAMES.keys()
    assert scores.notes["objects_invented_most"] == {"bench": {"invented": 1, "named": 1}}


def test_the_tables_are_shares_of_their_rows_and_the_lines_show_them():
    scores = measured()
    table = scores.notes["gender_named"]
    assert table["woman"]["pictures"] == 2
    assert [table["woman"][kind][0] for kind in kinds(GENDER)] == [0.5, 0.5, 0, 0, 0]
    assert table["woman"]["man"][1:] == [0, 1]
    assert table[UNCLEAR]["nobody"] == [1, 1, 1]
    assert "woman and man" not in table  # no such picture
    lines = people_lines(scores.as_json())
    assert any(line.split()[:4] == ["woman", "2", "50", "[0,"] for line in lines)
    assert "bench 1 of 1" in lines[-1]
    assert people_lines({}) == []


def test_without_people_it_says_what_could_not_be_measured():
    scores = measured({name: ("a red ball", ["a red star", "a ball"]) for name in "ab"})
    assert scores.measured.keys() == {"people_invented", "objects_invented", "object_mentions_invented",
                                      "objects_invented_by_references"}  # fmt: skip
    assert scores.not_measured["women_called_men"] == "no picture with such references"
    json.dumps(scores.as_json(), allow_nan=False)
    assert "people_missed" in measured({"a": ("no", ["a man"])}).measured


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # without Java, which takes its time
    pd.DataFrame([(name, text) for name, (_, texts) in PICTURES.items() for text in texts],
                 columns=["image", "caption"]).to_csv("references.csv", index=False)  # fmt: skip
    pd.DataFrame([(name, text) for name, (text, _) in PICTURES.items()],
                 columns=["image_name", "caption"]).to_csv("captions.csv", index=False)  # fmt: skip


def test_the_command_score_measures_people_if_asked(files, capsys):
    pytest.importorskip("pycocoevalcap")
    command = ["score", "--captions", "captions.csv", "--references", "references.csv", "--held-out", "--out", "s.json"]
    main(command)
    assert "people_invented" not in json.loads(Path("s.json").read_text())
    main([*command, "--people", "--against", "captions.csv"])
    said, metrics = capsys.readouterr().out, json.loads(Path("s.json").read_text())
    assert metrics["people_invented"] == 1
    assert metrics["gender_named"]["woman"]["pictures"] == 2
    assert metrics["against"]["objects_invented"]["difference"] == 0
    assert "  a person invented             1.000" in said
    assert "Objects invented most" in said
    assert "people_missed" in pd.read_csv("s_by_image.csv")
    assert not any(name in line for line in summary_lines(metrics) for name in metrics if "_" in name)


def test_the_command_neutralize_keeps_all_but_the_words(files, capsys):
    Path("mine.csv").write_text("image_name,caption,split\n-a.jpg,A man and his dog.,train\nb.jpg,A cat.,test\n")
    main(["neutralize", "--captions", "mine.csv", "--out", "neutral.csv"])
    table = pd.read_csv("neutral.csv")
    assert list(zip(table.image_name, table.caption, table.split, strict=True)) == [
        ("-a.jpg", "A person and their dog.", "train"), ("b.jpg", "A cat.", "test")
    ]  # fmt: skip
    assert "2 captions lie in neutral.csv, 1 of them reworded; 0 rows that cannot be used are left out" in (
        capsys.readouterr().out
    )


words = st.sampled_from(["a", "woman", "men", "child", "and", "person", "dog", "bench", "player", "girls"])


def test_evaluate_measures_people_too(writer, data, cache, tmp_path):
    captions = data.captions.head(20)
    metrics = evaluate(writer, captions, cache, out=tmp_path, decoding=Decoding(neutral=True), people=True)
    assert metrics["decoding"] == "greedy, neutral words"
    assert metrics["people_invented"] == 0
    assert "people_missed" in metrics["not_measured"]  # the drawn world has no people
    assert over_trainings({"a": metrics, "b": metrics})["scores"]["objects_invented"]["mean"] == 0


texts = st.lists(words | st.text(max_size=4), max_size=6).map(" ".join)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_any_captions_are_measured(pictures):
    scores = measured(dict(enumerate(pictures)))
    found = scores.as_json()
    json.dumps(found, allow_nan=False)
    for score in scores.measured.values():
        assert 0 <= score.value <= 1
    for table in (found["gender_named"], found["age_named"]):
        assert sum(row["pictures"] for row in table.values()) == len(pictures)
        for row in table.values():
            assert math.isclose(sum(row[kind][0] for kind in list(row)[1:]), 1, abs_tol=1e-3)
    people_lines(found)


def test_intervals_shrink_with_the_pictures():
    widths = []
    for number in (40, 400):
        said = ["woman", "man"] * (number // 2)
        _, low, high = confusion(["woman"] * number, said, kinds(GENDER))["woman"]["man"]
        widths.append(high - low)
    assert np.isclose(widths[0] / widths[1], 10**0.5, rtol=0.3)
