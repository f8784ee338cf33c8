"""The plan predicts a run correctly, and a rehearsal leaves no trace."""

import pytest

from helpers.training.estimate import Plan


def plan(**values) -> Plan:
    """A plan of 150 epochs on Flickr30k at an invented 0.3 s per step."""
    return Plan(
        **{
            "computing_on": "cuda in fp16: Tesla T4 (sm_75) is fast in float16",
            "memory_gb": 9.1,
            "device_memory_gb": 15.6,
            "epochs": 150,
            "done": 0,
            "total": 302_100,
            "step_seconds": 0.3,
            "validations": 303,
            "validation_seconds": 10.0,
            "checkpoint_gb": 0.8,
            "captioner_gb": 0.9,
            "disk_gb": 4.2,
            **values,
        }
    )


def test_it_says_hours_sessions_quota_and_gigabytes():
    text = str(plan())
    hours = (302_100 * 0.3 + 303 * 10) / 3600  # 26.0
    assert plan().hours() == pytest.approx(hours)
    assert "9.1 of 15.6 GB in use" in text
    assert "302100 steps of 0.3 s and 303 validations of 10 s: 26.0 h" in text
    assert "3 sessions of 9 h and 86.7% of a week's 30 GPU hours" in text
    assert "4.2 GB on disk" in text
    assert "one session has room for 51 epochs (--epochs)" in text


def test_a_short_run_is_one_session():
    text = str(plan(total=1000, validations=1))
    assert "5.2 min, which on Kaggle is 1 session of 9 h" in text
    assert "room for" not in text


def test_what_remains_shrinks_with_the_steps_that_are_done():
    assert plan().remaining(151_050) == "151050 steps remain, 13.0 h or 2 sessions of 9 h"
    assert plan(done=151_050, validations=152).hours() == pytest.approx(plan().hours(151_050), rel=0.01)
    assert plan().hours(302_100) == 0


def test_time_to_save_grows_with_what_is_saved():
    assert plan().saving_seconds > plan(captioner_gb=0.1).saving_seconds > 3 * 0.9


def test_read_as_written(tmp_path):
    plan().save(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan()
