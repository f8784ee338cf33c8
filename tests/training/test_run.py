"""The run folder's history, cut back to a checkpoint, and files that may not be overwritten."""

import json

import pytest

from helpers.errors import UserError
from helpers.presets import preset
from helpers.runtime.model_folders import remember_inputs
from helpers.training.run import HISTORY, Run, begin_run, refuse_taken


def row(step: int) -> dict[str, object]:
    return {**dict.fromkeys(HISTORY, 0.5), "step": step, "val_loss": None if step % 2 else 1 / 3}


@pytest.fixture
def run(tmp_path):
    run = begin_run(tmp_path / "run", preset("tiny"), {"captions": 5}, resume=False)
    run.rewind(0)
    return run


def test_rows_are_read_back_to_the_bit(run):
    for step in (1, 2):
        run.append(row(step))
    history = run.history()
    assert list(history.columns) == HISTORY
    assert history.val_loss.isna().tolist() == [True, False]
    assert history.val_loss[1] == 1 / 3


@pytest.mark.parametrize("rest", ["", "3,0.5,0.", "3,0.5,0.5,0.5,0.5,0.5,0.5,0.5\n4,"])
def test_rewound_it_ends_at_the_step(run, rest):
    for step in (1, 2, 3):
        run.append(row(step))
    with run.history_file.open("a") as file:
        file.write(rest)  # a kill may leave half a line
    run.rewind(2)
    assert list(run.history().step) == [1, 2]
    run.append(row(3))
    assert list(run.history().step) == [1, 2, 3]


def test_samples_are_read_back_and_rewound(run):
    for step in (10, 20, 30):
        run.append_samples(step, {"a.jpg": f"caption\u2028{step}", "b.jpg": 'a "quoted" one'})
    with run.samples_file.open("a") as file:
        file.write('{"step": 40, "capt')
    run.rewind(20)
    samples = run.samples()
    assert samples.index.tolist() == [10, 20]
    assert samples.loc[20].to_dict() == {"a.jpg": "caption\u202820", "b.jpg": 'a "quoted" one'}


def test_a_run_may_go_on_in_other_parts_but_not_otherwise(run):
    begin_run(run.folder, preset("tiny").with_values(micro_batches=4, keep_checkpoints=9), {"captions": 5}, resume=True)
    with pytest.raises(UserError, match="holds a run with batch_size 64, here it is 32"):
        begin_run(run.folder, preset("tiny").with_values(batch_size=32), {"captions": 5}, resume=True)


def test_a_new_run_has_an_empty_history_and_a_folder_without_one_says_so(run, tmp_path):
    assert run.history().empty
    with pytest.raises(UserError, match=r"holds no history\.csv: give the folder of a run"):
        Run(tmp_path).history()


def test_going_on_needs_the_same_config_and_data(run):
    assert begin_run(run.folder, preset("tiny"), {"captions": 5}, resume=True).folder == run.folder
    with pytest.raises(
        UserError, match="captions 5, here it is 6: a run goes on with its own data; use that value, or"
    ):
        begin_run(run.folder, preset("tiny"), {"captions": 6}, resume=True)
    with pytest.raises(
        UserError, match="clip 'tiny', here it is 'openai/clip-vit-base-patch32': a run goes on with its"
    ):
        begin_run(run.folder, preset("small"), {"captions": 5}, resume=True)


def test_a_run_from_before_a_field_was_there_goes_on_with_its_default(run):
    record = json.loads(run.config_file.read_text())
    del record["config"]["pooling"]
    run.config_file.write_text(json.dumps(record))
    begin_run(run.folder, preset("tiny"), {"captions": 5}, resume=True)
    with pytest.raises(UserError, match="holds a run with pooling 'pooled', here it is 'patches'"):
        begin_run(run.folder, preset("tiny").with_values(pooling="patches"), {"captions": 5}, resume=True)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "gpt2"}'])
def test_another_config_json_is_no_run(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"is no run's config\.json: name the folder of a run, or a new one"):
        begin_run(tmp_path, preset("tiny"), {}, resume=True)
    assert (tmp_path / "config.json").read_text() == content


def test_what_would_be_written_over_is_refused(run, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "other" / "captioner").mkdir(parents=True)
    for resume in (False, True):
        with pytest.raises(UserError, match="is a file: name a folder"):
            refuse_taken(tmp_path / "file", resume)
        with pytest.raises(UserError, match="holds captioner, but no config"):
            begin_run(tmp_path / "other", preset("tiny"), {}, resume=resume)
    with pytest.raises(UserError, match="already holds a run: go on with it by --resume, or name another folder"):
        refuse_taken(run.folder, resume=False)
    refuse_taken(run.folder, resume=True)
    refuse_taken(tmp_path / "new", resume=False)


@pytest.mark.parametrize("name", ["history.csv", "samples.jsonl", "plan.json", "inputs.json", "loss_lr.png"])
def test_files_of_the_user_are_no_start_of_a_run(tmp_path, name):
    (tmp_path / name).write_text('{"date": "2020"}\n')
    for resume in (False, True):
        for begin in (refuse_taken, lambda folder, resume: begin_run(folder, preset("tiny"), {}, resume=resume)):
            with pytest.raises(UserError, match=rf"holds {name}, but no config\.json of a run, which would write over"):
                begin(tmp_path, resume)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, '{"date": "2020"}\n')]


def test_a_run_that_was_refused_before_it_began_may_begin_there(tmp_path):
    remember_inputs(tmp_path, dict.fromkeys(("images", "captions", "splits", "cache")), {})
    refuse_taken(tmp_path, resume=False)
