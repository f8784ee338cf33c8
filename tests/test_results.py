"""docs/results.py says what the tables say: trainings beside the first one, what was tuned, judges, probes, hours."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

import results
import results_scores
import results_tables
import results_text
import results_trust
from results_cells import MEASURED, ROOT, TABLES, score, table
from results_scores import against_the_best_writer, drawn_tells, drawn_test, own_photos, photo_tells
from results_tables import loss_too, section, steps_at_a_small_rate
from results_trust import calibration, familiarity, judges, probing
from results_tuned import TunedArm, edges_in_words, rates_in_words, tuned_arms

from helpers import scene_entropy, wording_entropy
from helpers.experiments.questions import QUESTIONS, Question

MEAN = "0.200 [-0.048, 0.448]"  # of 0.1, 0.2 and 0.3, by Student's t
PAGE = " ".join((ROOT / "docs" / "results.md").read_text("utf-8").split())


def load(file: Path) -> dict:
    return json.loads(file.read_text("utf-8"))


def row(text: str, label: str) -> list[str]:
    """Return the cells of the table's row that begins with a label."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def tuned(name: str = "mlp", tried: tuple = (1e-4, 1e-3, 1e-2), best: float = 1e-3, **values) -> TunedArm:
    return TunedArm(name, "mapper_lr", tried, best, **{"mean": 0.5, "flat": False} | values)


def test_an_interval_without_a_width_is_left_out():
    assert score(0.5, (0.4, 0.6)) == "0.500 [0.400, 0.600]"
    assert score(0.5, (0.5, 0.5)) == score(0.5) == "0.500"
    assert table(("a", ""), [(1, "b")]) == "| a |  |\n|---|---|\n| 1 | b |"


def test_the_headline_shows_the_first_training_beside_the_mean_of_all():
    first, all_three = load(MEASURED / "drawn-test.json"), load(TABLES / "trainings.json")["scores"]["cider"]
    low, high = all_three["over_trainings"]
    cells = row(drawn_test(), "CIDEr")
    assert cells[0].startswith(f"{first['cider']:.3f} [")
    assert cells[1] == f"{all_three['mean']:.3f} [{low:.3f}, {high:.3f}]"
    assert "| first training, over pictures | mean of three trainings, over trainings |" in drawn_test()
    assert "How much trainings differ" not in PAGE  # that was the spread of another recipe


def test_a_captioner_that_knows_all_but_the_wording_is_told_the_whole_scene():
    scores = {"picture_tells_per_caption": {"mean": 8.0}, "picture_tells_per_token": {"mean": 0.5}}  # 16 tokens
    assert against_the_best_writer(wording_entropy() / 16, scores) == pytest.approx(scene_entropy())


def test_what_the_picture_tells_against_the_best_writer_is_less_than_against_the_language_model():
    found = row(drawn_test(), results_text.BEST_BLIND)
    assert found[1] == "7.94 [7.87, 8.01]"
    assert "[" not in found[0]
    against = [float(row(drawn_tells(), writer)[3].split()[0])
               for writer in ("the best writer that there can be", "the language model alone")]  # fmt: skip
    assert against[0] < against[1]
    told = load(TABLES / "trainings.json")["scores"]["picture_tells_per_caption"]["mean"]
    assert f"The {told:.2f} nats per caption are against the language model alone." in PAGE


def test_what_the_picture_tells_is_the_difference_of_what_writers_need():
    for line in drawn_tells().splitlines():
        if len(found := re.findall(r"\d+\.\d{3}", line)) == 5:
            without, seen, told = map(float, found[:3])
            assert without - seen == pytest.approx(told, abs=0.0015)
    assert row(drawn_tells(), "the best writer that there can be")[0] == f"{scene_entropy() + wording_entropy():.3f}"


def test_what_the_picture_tells_is_that_of_the_tables():
    low, high = load(TABLES / "blind.json")["picture_tells_per_caption_95_interval"]
    assert f"[{low:.3f}, {high:.3f}]" in row(drawn_tells(), "the captioner behind the mean embedding")[3]
    low, high = load(TABLES / "trainings-photo.json")["scores"]["picture_tells_per_token"]["over_trainings"]
    assert f"[{low:.3f}, {high:.3f}]" in row(photo_tells(), "what the photo tells, nats per token")[1]


def test_what_is_forgotten_is_a_list_of_its_own_corrected_within_it(tmp_path, monkeypatch):
    rows = [
        {"arm": arm, "photos": photos, "seed": seed, "judged_on": judged, "loss": 3.0 + seed / 100, "words": 10.0,
         "cider": 0.5 + seed / 100 - (photos * (1 + seed / 50) / 10_000 if judged == "flickr8k" else 0)}
        for arm, photos in (("as it ships", 0), ("goes on", 30), ("goes on", 1000))
        for seed in range(5) for judged in ("own", "flickr8k")
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "own_photos.csv", index=False)
    monkeypatch.setattr(results_scores, "MEASURED", tmp_path)
    own, forgotten = own_photos().split("CIDEr of own photos, ")[1].split("What is forgotten, ")
    assert "- 1,000 photos: 0.520, no difference shown" in own
    assert "- 1,000 photos: 0.416, lower: -0.104 [-0.108, -0.100]" in forgotten


def test_no_superlative_is_called_standing_because_a_difference_was_shown():
    for claim, *_ in results_text.EARLIER:
        assert not re.search(r"\b(most|best|least|worst|far|\w+est)\b", claim), claim
    assert "worth the most”: this is not shown" in PAGE


def test_a_claim_stands_only_by_the_verdict_that_it_needs(monkeypatch):
    effects = pd.DataFrame({"arm": ["a", "b"], "mean": [1.0, 0.5], "difference": [0, -0.5], "low": [0, -0.6],
                            "high": [0, -0.4], "seeds": [5, 5], "verdict": ["base", "lower"]})  # fmt: skip
    monkeypatch.setattr(results, "answer", lambda name, folder: effects)
    for needed, said in (("lower", "this stands"), ("higher", "this is not shown")):
        monkeypatch.setattr(results, "EARLIER", [("b is behind", "question", "b", needed)])
        assert results.earlier(["question"]).startswith(f"- “B is behind”: {said} (0.500, lower")


@pytest.fixture
def tried(tmp_path) -> Question:
    """Two arms at three rates each: one is best at the lowest, the other comes to the same at each."""
    rows = [("encoder", rate, seed, 0.9 - 10 * rate + seed / 100) for rate in (0.001, 0.01, 0.03) for seed in range(3)]
    rows += [("frozen", rate, seed, seed / 100_000) for rate in (0.001, 0.01, 0.03) for seed in range(3)]
    columns = ["mapper", "mapper_lr", "seed", "correct"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "mapper.csv", index=False)
    return Question("mapper", "mapper", "encoder", tuned="mapper_lr")


def test_what_was_tuned_and_at_which_end_is_found_in_the_table(tried, tmp_path):
    encoder, frozen = tuned_arms(tried, tmp_path)
    assert (encoder.name, encoder.tried, encoder.best, encoder.edge) == (
        "encoder",
        (0.001, 0.01, 0.03),
        0.001,
        "lowest",
    )
    assert (frozen.flat, frozen.edge) == (True, "")


def test_an_arm_of_a_table_of_its_own_is_tuned_if_that_table_is_there(tried, tmp_path):
    question = Question("freezing", "freezing", "full", retuned=(("lora", "lora_lr", "gpt2_lr"),))
    assert tuned_arms(question, tmp_path) == []
    rows = [(rate, seed, rate + seed / 100) for rate in (0.1, 0.2) for seed in range(2)]
    pd.DataFrame(rows, columns=["gpt2_lr", "seed", "cider"]).to_csv(tmp_path / "lora_lr.csv", index=False)
    (lora,) = tuned_arms(question, tmp_path)
    assert (lora.name, lora.best, lora.edge) == ("lora", 0.2, "highest")


def test_the_page_says_by_itself_if_an_arm_was_best_at_an_end_of_what_was_tried():
    lowest, highest = tuned("encoder", best=1e-4), tuned("queries", best=1e-2)
    assert edges_in_words([tuned()]) == []
    assert edges_in_words([lowest, tuned("queries", best=1e-4), tuned()]) == [
        "`encoder` and `queries` were best at the lowest learning rate tried, so a lower one may suit them more."
    ]
    assert edges_in_words([highest])[0].endswith("so a higher one may suit it more.")
    assert len(edges_in_words([lowest, highest])[0].split(". ")) == 2


def test_an_arm_that_no_rate_changes_has_no_best_one_and_is_not_too_good():
    flat = tuned("frozen", best=1e-4, mean=0.0, flat=True)
    assert edges_in_words([flat]) == ["`frozen` comes to 0.000 at every learning rate tried (0.0001, 0.001, 0.01)."]
    assert "frozen" not in rates_in_words("freezing", [flat, tuned("lora")], ["full", "frozen", "lora"])
    assert "too good" not in rates_in_words("freezing", [flat], ["full", "frozen"])
    effects = pd.DataFrame({"freezing": ["full", "frozen, mapper_lr 0.0001"], "mean": 0.0, "difference": 0.0,
                            "low": 0.0, "high": 0.0, "p_holm": 1.0, "seeds": 5,
                            "verdict": ["base", "no difference shown"]})  # fmt: skip
    shown = results_tables.effects_table(effects, "freezing", "freezing", [flat])
    assert "| frozen, at each mapper_lr tried |" in shown


def test_one_rate_for_all_is_said_only_as_long_as_no_arm_has_its_own():
    assert set(results_text.RATES_MATTER) <= set(QUESTIONS)
    for name in results_text.RATES_MATTER:
        arms = ["a", "b"]
        assert rates_in_words(name, [], arms) == results_text.ONE_RATE
        assert results_text.ONE_RATE not in rates_in_words(name, [tuned("a")], arms)
        assert results_text.OTHERS_RATE in rates_in_words(name, [tuned("a")], arms)
        assert results_text.OTHERS_RATE not in rates_in_words(name, [tuned("a"), tuned("b")], arms)
    assert rates_in_words("defects of the original", [], ["none"]) == ""
    assert results_text.ONE_RATE in section("prefix length")


def test_what_the_pair_was_pretrained_on_is_said_with_its_numbers():
    report = load(ROOT / "helpers" / "tiny" / "report.json")
    said = f"{report['clip_pictures']:,} other pictures of this world: on their {report['gpt2_captions']:,} captions"
    assert said in section("training pictures")
    assert said in PAGE.split("## The drawn world: ")[1]  # where its captioner's skill is shown first


def test_the_loss_stands_below_the_photos_that_cider_does_not_tell_apart():
    question = QUESTIONS["photos: training photos"]
    assert "- 1,000: 3.177, higher: +0.127 [0.118, 0.135]" in loss_too(question)
    assert loss_too(question) in section("photos: training photos")
    assert "Validation loss" not in section("photos: prefix length")


def test_the_hours_count_the_last_minutes_of_each_training_of_time_to_quality():
    looks = pd.read_csv(TABLES / "quality.csv")
    seconds = results.seconds_of(TABLES / "quality.csv")
    assert len(seconds) == len(looks.groupby(["recipe", "seed"]))
    assert sum(seconds.values()) == pytest.approx(60 * looks.groupby(["recipe", "seed"]).minutes.max().sum())
    assert seconds["time to quality, ours, 0"] < seconds["time to quality, after ClipCap, 0"]


def test_the_seconds_of_a_training_are_found_by_its_name(tmp_path):
    pd.DataFrame({"epochs": [1, 2], "seed": 0, "seconds": [10.0, 20.0]}).to_csv(tmp_path / "a.csv", index=False)
    record = {"varied": ["epochs"], "trainings": {"second": "epochs 2, seed 0", "first": "epochs 1, seed 0"}}
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert results.seconds_of(tmp_path / "a.csv") == {"second": 20.0, "first": 10.0}
    looks = pd.DataFrame({"epochs": [1, 1, 2], "seed": 0, "cpu_minutes": [1.0, 1.5, 2.0]})
    looks.to_csv(tmp_path / "a.csv", index=False)
    assert results.seconds_of(tmp_path / "a.csv") == {"second": 120.0, "first": 90.0}


def view(difference: float, verdict: str, **more) -> dict:
    side = {"preferred": 0.5, "95_interval": [0.4, 0.6]}
    minus = {"difference": difference, "95_interval": [difference - 0.1, difference + 0.1], "verdict": verdict}
    return {"own": side, "other": side, "own_minus_other": minus | more}


def judged(*views: tuple[str, dict]) -> dict:
    table = [{"run": f"run-{number}", "eyes": "a", "judge": "b/clip", "judges_eyes": "b"} for number in range(3)]
    captions = {f"of captioners that see by {eyes}": found for eyes, found in views}
    return {"command": "python -m benchmarks.judges --images /there/flickr8k/Images", "pictures": 7, "table": table,
            "captions": captions}  # fmt: skip


def test_judges_are_shown_with_the_verdict_of_the_file_and_with_p_once_it_has_one(tmp_path, monkeypatch):
    monkeypatch.setattr(results_trust, "TABLES", tmp_path)
    file = tmp_path / "judges-drawn.json"
    false = {"captions": 12} | view(0.2, "lower")
    file.write_text(json.dumps(judged(("a", view(0.3, "no difference shown") | {"wrong_captions": false}))))
    text = judges("drawn")
    assert "captioners: 3 by `a`; judges: 1 by `b`" in " ".join(text.split())
    assert "not corrected" in text
    assert "may be a judge's taste" in text
    assert "--images data/flickr8k/Images" in text
    assert row(text, "a | all")[-2:] == ["+0.300 [0.200, 0.400]", "no difference shown"]
    assert row(text, "a | false, 12")[-1] == "lower"

    corrected = judged(("a", view(0.3, "higher", p_holm=0.0004)), ("either", view(0.1, "lower", p_holm=0.04)))
    file.write_text(json.dumps(corrected))
    text = judges("drawn")
    assert row(text, "a | all")[-2:] == ["< 0.001", "higher"]
    assert row(text, "either | all")[-2:] == ["0.040", "lower"]
    assert "| p |" in text
    assert "corrected by Holm" in text
    assert "it cancels" in text


def test_the_judges_of_drawn_scenes_and_of_photos_are_those_of_the_tables():
    for world in ("drawn", "photo"):
        for captioners, found in load(TABLES / f"judges-{world}.json")["captions"].items():
            minus, cells = found["own_minus_other"], row(judges(world), f"{captioners.split()[-1]} | all")
            assert cells[3].startswith(f"{minus['difference']:+.3f} [")
            assert cells[-1] == minus["verdict"]


def test_the_probe_is_shown_for_each_seed():
    right = load(TABLES / "probing.json")["right"]
    for name, label in results_text.PROBED.items():
        assert row(probing(), label) == [", ".join(f"{share:.3f}" for share in right[name]["all"])]
    assert set(results_text.PROBED) == set(right)
    assert "2,378 training pictures" in " ".join(probing().split())
    assert "all 7 facts" in probing()


def test_calibration_is_shown_for_each_training_and_where_it_is_surest():
    curves = load(TABLES / "calibration.json")["curves"]
    for name, label in results_text.CALIBRATED.items():
        errors, sure, right = row(calibration(), label)
        assert errors == ", ".join(f"{error:.3f}" for error in curves[name]["ece"])
        assert sure == f"{curves[name]['curve']['confidence'][-1]:.3f}"
        assert right.startswith(f"{curves[name]['curve']['right'][-1]:.3f} [")


def test_false_alarms_and_other_pictures_have_an_interval():
    found = load(MEASURED / "familiarity.json")
    rows = [line for line in familiarity().splitlines() if line.startswith("| of ")]
    assert len(rows) == sum(len(kinds) for kinds in found.values())
    shown = row(familiarity(), "of photos | 964 photos not trained on")
    assert shown[1:] == ["0.033 [0.024, 0.046]", "false alarms"]
    assert row(familiarity(), "of the drawn world | 150 pages of text")[1:] == ["0.400 [0.325, 0.480]", "0.959"]


def test_the_captions_that_are_right_after_so_many_steps_are_those_of_the_table():
    looks = pd.read_csv(TABLES / "steps_at_9e-6.csv").query("mapper_lr == 9e-6 and gpt2_lr == 9e-6")
    for steps in (750, 1500, 3000, 6000):
        shares = looks[looks.steps == steps].sort_values("seed").correct
        assert row(steps_at_a_small_rate(), f"{steps:,}")[: len(shares)] == [f"{share:.3f}" for share in shares]


@pytest.mark.parametrize(("seeds", "cells"), [(2, ["0.100", "0.200"]), (3, ["0.100", "0.200", "0.300", MEAN])])
def test_steps_have_an_interval_from_three_seeds_on(tmp_path, monkeypatch, seeds, cells):
    rows = [(9e-6, 9e-6, seed, steps, 0.1 + seed / 10, 1.5) for seed in range(seeds) for steps in (372, 750)]
    columns = ["mapper_lr", "gpt2_lr", "seed", "steps", "correct", "cpu_minutes"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "steps_at_9e-6.csv", index=False)
    (tmp_path / "steps_at_9e-6.json").write_text(json.dumps({"calls": [{"command": "python -m this"}]}))
    monkeypatch.setattr(results_tables, "TABLES", tmp_path)
    text = steps_at_a_small_rate()
    assert row(text, "750") == cells
    assert "| 372 |" not in text
    assert ("no interval" in text) is (seeds == 2)
    assert text.endswith("```\npython -m this\n```")
