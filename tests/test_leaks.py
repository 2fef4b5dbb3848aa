"""A picture on both sides of the split is found under any id, named, and refused."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.datasets.leaks import pairs_across
from minddiff_utils.preprocessing.leak_check import check_leaks, leak_report

IDS = np.arange(100, 112)
SHARED = np.arange(100, 104)
COCO, CAPTIONS = IDS * 7, [[f"{i} a", f"{i} b"] for i in IDS]
TEST, VALIDATION, TRAIN = 1, 10, 5  # a row of each


@dataclass(frozen=True)
class Rows:
    nsd_id: npt.NDArray[np.int64]
    split: npt.NDArray[np.str_]


def rows() -> Rows:
    split = np.array(["test"] * 4 + ["train"] * 5 + ["validation"] * 3)
    return Rows(IDS.copy(), split)


def pictures() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)


def report(
    found: Rows | None = None,
    images: npt.NDArray[np.uint8] | None = None,
    coco: npt.NDArray[np.int64] = COCO,
    captions: list[list[str]] = CAPTIONS,
) -> pd.DataFrame:
    pixels = pictures() if images is None else images
    return leak_report(found or rows(), pixels, SHARED, coco, captions)


def failed(table: pd.DataFrame) -> dict[str, str]:
    wrong = table[~table["passed"]]
    return dict(zip(wrong["check"], wrong["nsd_id"], strict=True))


def test_a_clean_split_passes_every_check() -> None:
    table = report()
    assert table["passed"].all()
    assert (table["found"] == 0).all()
    check_leaks(table, "refuse")


def test_a_second_test_set_is_guarded_like_the_first() -> None:
    found, images = rows(), pictures()
    found.split[:2] = "test2"
    assert report(found)["passed"].all()
    images[TRAIN] = images[TEST]
    assert failed(report(found, images))
    found.split[TRAIN] = "test2"
    assert "test images that are not shared" in failed(report(found))


@pytest.mark.parametrize("other", [TRAIN, VALIDATION])
def test_one_picture_under_two_ids_is_found_by_pixels_coco_id_and_captions(
    other: int,
) -> None:
    images, coco, captions = pictures(), COCO.copy(), [list(c) for c in CAPTIONS]
    images[other], coco[other] = images[TEST], coco[TEST]
    captions[other] = captions[TEST][::-1]
    pair = f"{IDS[TEST]} = {IDS[other]}"
    byte, number, words = (
        "pictures equal to the byte in test and training",
        "COCO pictures in test and training",
        "sets of captions in test and training",
    )
    assert failed(report(images=images)) == {byte: pair}
    assert failed(report(coco=coco)) == {number: pair}
    assert failed(report(captions=captions)) == {words: pair}


def test_a_picture_in_validation_and_training_is_reported_and_no_leak() -> None:
    coco = COCO.copy()
    coco[VALIDATION] = coco[TRAIN]  # as NSD has one
    table = report(coco=coco)
    assert failed(table) == {}
    row = table.set_index("check").loc["COCO pictures in validation and training"]
    assert (row["found"], row["nsd_id"]) == (1, "110 = 105")
    assert pd.isna(row["allowed"])


def test_images_on_the_wrong_side_are_named() -> None:
    found = rows()
    found.split[TEST] = "train"
    found.split[TRAIN] = "test"
    assert failed(report(found)) == {
        "training images that are shared": str(IDS[TEST]),
        "test images that are not shared": str(IDS[TRAIN]),
    }
    found = rows()
    found.nsd_id[TRAIN] = IDS[TEST]
    assert failed(report(found))["images in two splits"] == str(IDS[TEST])


def test_a_leak_is_an_error_that_names_the_images_unless_the_profile_accepts_it() -> (
    None
):
    coco = COCO.copy()
    coco[TRAIN] = coco[TEST]
    table = report(coco=coco)
    with pytest.raises(DataError, match=r"\(nsd_id 101 = 105\).*data\.leaks to report"):
        check_leaks(table, "refuse")
    check_leaks(table, "report")


def test_many_pairs_are_counted_and_a_few_named() -> None:
    keys = [*range(8), *range(8)]
    first = np.arange(16) < 8
    assert pairs_across(keys, first, ~first) == [(i, i + 8) for i in range(8)]
    found = report(coco=np.zeros(12, np.int64))
    assert failed(found)["COCO pictures in test and training"].startswith("100 = 104,")
