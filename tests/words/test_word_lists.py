"""The lists of words for people and things, and captions without words for gender."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.words.objects import object_words, objects_named
from helpers.words.people import PRONOUNS, WORD, neutral, people_named, person_words

GENDERED = [word for word, known in person_words().items() if known.gender != "person"]


def test_every_word_with_a_gender_becomes_a_person_without_one_and_of_the_same_age():
    assert GENDERED
    for word, known in person_words().items():
        assert known.gender in ("woman", "man", "person")
        assert known.age in ("adult", "child", "")
        assert bool(known.neutral) == (known.gender != "person")
        if known.neutral:
            assert people_named(known.neutral) <= {"person", "adult", "child"}
            assert not {"adult", "child"} <= people_named(f"{known.neutral} {word}")


def test_man_and_woman_do_not_overlap():
    assert not {"woman", "man"} <= people_named("the women")
    assert people_named("A woman and two boys.") == {"person", "woman", "man", "adult", "child"}
    assert people_named("a hockey player") == {"person"}
    for nobody in ("a couple of dogs", "a man-made lake", "a dog wags his tail", "manhole", ""):
        assert people_named(nobody) == set()


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("a woman in her red hat", "a person in their red hat"),
        ("a boy kisses her on the cheek", "a child kisses them on the cheek"),
        ("a dog next to her .", "a dog next to them ."),
        ("A man and a woman are sitting", "Two people are sitting"),
        ("a young boy and girl", "two young children"),
        ("men and women on a street", "people on a street"),
        ("a man smiles as he carries it, and she watches him", "a person smiles as they carry it, and they watch them"),
        ("she's here, he is there, he has it", "they're here, they are there, they have it"),
        ("he always runs", "they always runs"),
        ("a female athlete and two male dancers", "an athlete and two dancers"),
        ("Female tennis player", "Tennis player"),
        ("a male in a hat; a female sitting", "a person in a hat; a person sitting"),
        ("the man's hat and a woman's bag", "the person's hat and a person's bag"),
        ("Bride and groom", "Newlyweds"),
        ("a man-made lake", "a man-made lake"),
        ("a person and a person", "a person and a person"),
    ],
)
def test_neutral(caption, wanted):
    assert neutral(caption) == wanted


def texts(known):
    """Texts of these words, small words, and letters and marks of all kinds."""
    small = ["a", "an", "and", "the", "is", "runs", "carries", "on", "dog's", "-"]
    odd = st.text(st.sampled_from(string.printable + "\u0131\u00df\u00e9\u2019\u2028"), max_size=5)
    return st.lists(st.sampled_from([*known, *small]) | odd).flatmap(
        lambda parts: st.sampled_from([" ".join(parts), "".join(parts), " ".join(parts).title()])
    )


@given(texts([*GENDERED, *PRONOUNS]))
def test_no_caption_keeps_a_gender_and_a_neutral_one_stays_as_it_is(text):
    once = neutral(text)
    assert not people_named(once) & {"woman", "man"}
    assert not {word.lower() for word in WORD.findall(once)} & set(PRONOUNS)
    assert neutral(once) == once


@given(texts([word for word in GENDERED if not word.endswith("male")]))  # "a male dog" becomes "a dog"
def test_people_stay_people(text):
    assert ("person" in people_named(text)) == ("person" in people_named(neutral(text)))


def test_synonyms_plurals_and_runs_of_words():
    assert objects_named("Two puppies chase a soccer ball on the beaches.") == {"dog", "ball", "beach"}
    assert objects_named("a hot dog") == {"food"}
    assert objects_named("a T-shirt and knives") == {"shirt", "knife"}
    assert objects_named("a man in glasses drinks from a glass") == {"glasses", "cup"}
    assert objects_named("he swings and looks at the camera") == set()
    assert objects_named("a lake") == objects_named("the ocean") == {"water"}


def test_each_entry_of_the_list_is_read_as_its_own_thing():
    for words, name in object_words().items():
        assert objects_named(words) == {name} - {"nothing"}, words


def test_no_thing_is_a_person():
    assert not {words for words in object_words() if words in person_words() and person_words()[words].neutral}


@given(texts(object_words()))
def test_any_text_names_known_things(text):
    assert objects_named(text) <= set(object_words().values())
