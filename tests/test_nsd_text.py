"""Names of regions and captions are what the files say, or a word on what is wrong."""

import json
from typing import Any

import pytest

from minddiff_utils.datasets.coco import captions_by_image, is_caption
from minddiff_utils.datasets.visual_areas import read_labels


def note(number: Any, caption: Any = "a cat", image: Any = 5) -> dict[str, Any]:
    return {"id": number, "image_id": image, "caption": caption}


def read(*notes: Any) -> dict[int, list[str]]:
    """Read annotations as they come from a file."""
    return captions_by_image(json.loads(json.dumps({"annotations": list(notes)})))


# --- captions -----------------------------------------------------------------------


def test_captions_are_in_the_order_of_their_ids() -> None:
    found = read(note(9, "late"), note(1, "other", 6), note("2", "early"))
    assert found == {5: ["early", "late"], 6: ["other"]}


@pytest.mark.parametrize("caption", ["", " ", "\n\t", "\x00\x07", "\u200b", "\u2028"])
def test_what_has_no_visible_character_is_no_caption(caption: str) -> None:
    assert read(note(1, caption), note(2, "a dog")) == {5: ["a dog"]}
    assert not is_caption(caption)


def test_an_annotation_that_stands_twice_counts_once() -> None:
    assert read(note(1), note(1), note(2)) == {5: ["a cat", "a cat"]}


@pytest.mark.parametrize(
    "caption", ["😀 on a 🛹", "👩‍👩‍👧", "un café", "ابجد", "12", "a" * 100_000]
)
def test_any_text_is_a_caption_as_it_stands(caption: str) -> None:
    assert read(note(1, caption)) == {5: [caption]}


def test_control_characters_become_single_blanks() -> None:
    assert read(note(1, " a\x00cat\r\n\x1b on  it")) == {5: ["a cat on it"]}


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        (None, "nothing (null) for the caption of annotation 7"),
        (5, "'5' for the caption of annotation 7"),
        (float("nan"), "'nan' for the caption"),
        (True, "'True' for the caption"),
        ([], "'[]' for the caption"),
        (["a cat"], "\"['a cat']\" for the caption"),
        ({"en": "a cat"}, "for the caption of annotation 7"),
        ("half \ud83d", "broken Unicode in the caption of annotation 7"),
    ],
)
def test_a_caption_that_is_no_text_is_said_and_never_turned_into_words(
    caption: Any, words: str
) -> None:
    with pytest.raises(ValueError, match="annotation 7") as raised:
        read(note(1), note(7, caption))
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (note(1, "a dog"), "two different annotations with the id 1"),
        (note(1, image=6), "two different annotations with the id 1"),
        (note(None), "'None' for the 'id'"),
        (note(1.5), "'1.5' for the 'id'"),
        (note(True), "'True' for the 'id'"),
        (note(2, image="five"), "'five' for the 'image_id'"),
        (note(2, image=float("inf")), "'inf' for the 'image_id'"),
        ({"id": 2, "image_id": 5}, "without 'caption' (it has id, image_id)"),
        ({"image_id": 5, "caption": "a cat"}, "without 'id'"),
        ({"id": 2, "caption": "a cat"}, "without 'image_id'"),
        ({"id": 2, "image_id": 5, "category_id": 3, "bbox": []}, "without 'caption'"),
        ("a cat", "str 'a cat' for an annotation"),
        (None, "NoneType 'None' for an annotation"),
    ],
)
def test_what_is_wrong_with_an_annotation_is_said(wrong: Any, words: str) -> None:
    with pytest.raises(ValueError, match="annotation") as raised:
        read(note(1), wrong)
    assert words in str(raised.value)


@pytest.mark.parametrize("raw", [5, None, [], "text", {}, {"annotations": {}}])
def test_a_file_without_annotations_is_said(raw: Any) -> None:
    with pytest.raises(ValueError, match="no list of annotations"):
        captions_by_image(raw)


# --- labels -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "0 Unknown \t\n1 V1v\t \n12  TO2",
        "1 V1v 255 0 0 0\r\n12 TO2 1 2 3 0\r\n",
        "#$Id: a table\n\n  # of colours\n12 TO2\n1 V1v\n1 V1v\n",
    ],
)
def test_a_colour_table_is_read_in_each_of_its_forms(text: str) -> None:
    assert read_labels(text) == {"V1v": 1, "TO2": 12}


@pytest.mark.parametrize("text", ["1 V1v\n2 V1v\n", "1 V1v\n1 V1d\n", "one V1v\n"])
def test_a_colour_table_of_two_meanings_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"again|invalid literal"):
        read_labels(text)


@pytest.mark.parametrize("text", ["", "\n", "0 Unknown\n", "1\n2\n", "1,V1v\n"])
def test_a_table_without_names_has_no_label(text: str) -> None:
    assert read_labels(text) == {}
