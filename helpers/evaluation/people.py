"""People and things in captions against the references: genders and ages, people and objects that nobody named.

A picture's gender and age are what more than half of its references name. If all had to agree, one "player" among four
women would take the picture out, and only the plainest pictures would be left; if one were enough, one guess or slip
would count. "Nobody" needs all of them: a picture of which some references name a person, but not most, is "unclear".
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..words.objects import objects_named
from ..words.people import people_named
from .bootstrap import Score, resampled_sums
from .scores import Scores

GENDER, AGE = ("woman", "man"), ("adult", "child")
UNCLEAR = "unclear"
COMMONEST = 10  # invented objects that are named
NO_PICTURE = "no picture with such references"


def add_people_scores(scores: Scores, *, written: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Return the scores of N captions with those of the people and objects that they name.

    written: N captions. references: N lists of at least one text. The notes get the tables `gender_named` and
    `age_named` (see `confusion`) and `objects_invented_most` (see `invented_most`).
    """
    said = [people_named(text) for text in written]
    named = [[people_named(text) for text in texts] for texts in references]
    genders, ages = ([agreed(each, pair) for each in named] for pair in (GENDER, AGE))
    of_gender, of_age = ([which(each, pair) for each in said] for pair in (GENDER, AGE))
    woman, man, both, person, nobody = kinds(GENDER)
    adult, child, *_ = kinds(AGE)
    people = (woman, man, both, person)
    objects = [objects_named(text) for text in written]
    known = [[objects_named(text) for text in texts] for texts in references]
    measured = {
        "women_called_men": _share(genders, [woman], of_gender, [man]),
        "men_called_women": _share(genders, [man], of_gender, [woman]),
        "persons_given_a_gender": _share(genders, [person], of_gender, [woman, man, both]),
        "children_called_adults": _share(ages, [child], of_age, [adult]),
        "adults_called_children": _share(ages, [adult], of_age, [child]),
        "people_invented": _share(genders, [nobody], of_gender, people),
        "people_missed": _share(genders, people, of_gender, [nobody]),
    } | _objects_invented(objects, known)
    there = {name: score for name, score in measured.items() if not np.isnan(score.value)}
    notes = {
        "gender_named": confusion(genders, of_gender, kinds(GENDER)),
        "age_named": confusion(ages, of_age, kinds(AGE)),
        "objects_invented_most": invented_most(objects, known),
    }
    missing = dict.fromkeys(measured.keys() - there.keys(), NO_PICTURE)
    return replace(scores, measured=scores.measured | there, notes=scores.notes | notes,
                   not_measured=scores.not_measured | missing)  # fmt: skip


def kinds(pair: tuple[str, str]) -> tuple[str, ...]:
    """Return what a text can name: one of the pair, both, a person by another word, or nobody."""
    return (*pair, " and ".join(pair), "person", "nobody")


def which(named: set[str], pair: tuple[str, str]) -> str:
    """Return which of `kinds` a text names, by what `people_named` found in it."""
    one, other, both, person, nobody = kinds(pair)
    if named >= set(pair):
        return both
    return next((kind for kind in (one, other, person) if kind in named), nobody)


def agreed(named: Sequence[set[str]], pair: tuple[str, str]) -> str:
    """Return which of `kinds` more than half of a picture's references name, or "unclear".

    "person" is also said if most name a person, but no gender (or age) is in most of them.
    """
    counts = Counter(kind for each in named for kind in each)
    most = {kind for kind, number in counts.items() if 2 * number > len(named)}
    return UNCLEAR if counts["person"] and "person" not in most else which(most, pair)


def confusion(truth: Sequence[str], said: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a table of what captions name (its columns) by what their references name (its rows).

    truth, said: N kinds. A row has its number of pictures, and in each column [share, low, high] with the 95 % interval
    over pictures. Rows without a picture are left out.
    """
    rows = [row for row in (*columns, UNCLEAR) if row in truth]
    in_row = np.array([[each == row for row in rows] for each in truth], dtype=float)  # [N, R]
    in_column = np.array([[each == column for column in columns] for each in said], dtype=float)  # [N, C]
    cells = (in_row[:, :, None] * in_column[:, None]).reshape(len(truth), -1)  # [N, R * C]
    sums = resampled_sums(np.hstack([cells, in_row]))
    with np.errstate(invalid="ignore"):  # a resample without a picture of a row
        resampled = sums[:, : -len(rows)].reshape(len(sums), len(rows), -1) / sums[:, -len(rows) :, None]
    low, high = np.nanquantile(resampled, [0.025, 0.975], axis=0)
    shares = cells.sum(axis=0).reshape(len(rows), -1) / in_row.sum(axis=0)[:, None]
    table = np.round(np.stack([shares, low, high], axis=-1), 4).tolist()  # [R, C, 3]
    return {row: {"pictures": truth.count(row), **dict(zip(columns, cells, strict=True))}
            for row, cells in zip(rows, table, strict=True)}  # fmt: skip


def invented_most(said: Sequence[set[str]], known: Sequence[Sequence[set[str]]]) -> dict[str, dict[str, int]]:
    """Return the commonest invented objects as {object: {invented: captions that invent it, named: that name it}}.

    said: the objects of N captions. known: N lists of those of each reference.
    """
    named = Counter(each for objects in said for each in objects)
    invented = Counter(
        each for objects, others in zip(said, known, strict=True) for each in objects.difference(*others)
    )
    order = sorted(invented, key=lambda each: (-invented[each], each))
    return {each: {"invented": invented[each], "named": named[each]} for each in order[:COMMONEST]}


def people_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return the tables of `add_people_scores` as lines for people, none if they were not measured."""
    lines = []
    for key, what in (("gender_named", "gender"), ("age_named", "age")):
        if table := metrics.get(key):
            columns = [name for name in next(iter(table.values())) if name != "pictures"]
            head = "".join(f"{column:>17}" for column in columns)
            lines += [f"What captions name (columns) by what most references name (rows): {what}, in % of a row",
                      f"  {'':<16}{'pictures':>8}{head}"]  # fmt: skip
            for row, cells in table.items():
                shares = ("{:.0f} [{:.0f}, {:.0f}]".format(*(100 * end for end in cells[name])) for name in columns)
                lines.append(f"  {row:<16}{cells['pictures']:>8}" + "".join(f"{share:>17}" for share in shares))
    if most := metrics.get("objects_invented_most"):
        said = ", ".join(f"{name} {found['invented']} of {found['named']}" for name, found in most.items())
        lines.append(f"Objects invented most, of the captions that name them: {said}")
    return lines


def _share(truth: Sequence[str], rows: Iterable[str], said: Sequence[str], columns: Iterable[str]) -> Score:
    """Return how many of the pictures whose truth is one of `rows` have captions that say one of `columns`."""
    return Score.mean(np.array([float(each in columns) if true in rows else np.nan
                                for true, each in zip(truth, said, strict=True)]))  # fmt: skip


def _objects_invented(said: Sequence[set[str]], known: Sequence[Sequence[set[str]]]) -> dict[str, Score]:
    """Return CHAIR's two rates (Rohrbach et al. 2018), and the first of them for the references themselves.

    Each reference is judged by the others of its picture: one fewer than the captions are judged by.
    """
    counts = [(len(objects.difference(*others)), len(objects)) for objects, others in zip(said, known, strict=True)]
    invented, named = np.array(counts, dtype=float).T
    with np.errstate(invalid="ignore"):
        share = invented / named
        of_mentions = Score.of(np.column_stack([invented, named]), lambda sums: sums[:, 0] / sums[:, 1], share)
    by_people = [np.mean([bool(objects.difference(*each[:place], *each[place + 1 :]))
                          for place, objects in enumerate(each)]) if len(each) > 1 else np.nan
                 for each in known]  # fmt: skip
    return {"objects_invented": Score.mean(np.sign(invented)), "object_mentions_invented": of_mentions,
            "objects_invented_by_references": Score.mean(np.array(by_people))}  # fmt: skip
