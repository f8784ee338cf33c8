"""The guidance benchmark, on a world in which every caption can be judged."""

import pytest

from benchmarks.guidance import measure
from helpers.models.decoding import Decoding


def test_one_row_per_decoding_with_the_gain_inside_its_interval(writer, data, tmp_path):
    pytest.importorskip("pycocoevalcap")
    decodings = [Decoding(), Decoding(guidance=2.0), Decoding(beams=2)]
    table = measure(writer, data, ["train", "val", "test"], cache=tmp_path / "cache", decodings=decodings)
    assert list(table.guidance) == [1.0, 2.0, 1.0]
    assert list(table.beams) == [1, 1, 2]
    assert (table.images == 60).all()
    assert (table.gain_low < table.gain).all()
    assert (table.gain < table.gain_high).all()
    assert (table.cider_shuffled >= 0).all()
    assert table.correct.between(0, 1).all()
