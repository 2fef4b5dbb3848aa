"""The images of the compared conditions: where they are, or how they are made.

Simple ones that use no generator are made here (nearest training image, mean training
image); generated ones are read from the folders that notebooks 03 and 04 wrote. Not
here: what each condition is (`core.conditions`), scores.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core import store
from minddiff_utils.core.conditions import by_name, compared
from minddiff_utils.core.errors import DataError, StoreError, check_choice, check_shape
from minddiff_utils.core.rows import Images, in_blocks
from minddiff_utils.core.run import Tree
from minddiff_utils.evaluation.metrics import ConditionImages

__all__ = [
    "conditions",
    "in_batches",
    "mean_image",
    "read_condition",
    "repeat_image",
    "unfinished",
]

Floats = npt.NDArray[np.floating]


def mean_image(images_train: Images) -> npt.NDArray[np.uint8]:
    """Return the mean of the training images, rounded to uint8.

    Parameters
    ----------
    images_train : uint8 (n_images, height, width, 3)
        Training images only.

    Returns
    -------
    uint8 (height, width, 3)
        What is best guessed, in squared error, without a brain.
    """
    check_shape(images_train.shape, (None, None, None, 3), "images_train")
    if len(images_train) == 0:
        raise DataError("There is no training image to average: raise data.sessions.")
    total = np.zeros(images_train.shape[1:])  # of integers: exact in any order
    for _, block in in_blocks(images_train):
        total += block.sum(axis=0, dtype=np.float64)
    return np.asarray(np.rint(total / len(images_train)).astype(np.uint8))


def repeat_image(image: npt.NDArray[np.uint8], n_images: int) -> npt.NDArray[np.uint8]:
    """Return `image` repeated to (n_images, height, width, 3)."""
    return np.repeat(image[None], n_images, axis=0)


def in_batches(
    apply: Callable[[Any], npt.NDArray[np.generic]], batch_size: int
) -> Callable[[Images], npt.NDArray[np.generic]]:
    """Return `apply` as a function that sees `batch_size` images at a time.

    Examples
    --------
    >>> in_batches(lambda x: x + 1, 2)(np.zeros((3, 1), np.uint8)).ravel()
    array([1, 1, 1], dtype=uint8)
    """

    def batched(images: Images) -> npt.NDArray[np.generic]:
        return np.concatenate([apply(x) for _, x in in_blocks(images, batch_size)])

    return batched


def read_condition(
    folder: Path, method: str, nsd_id: Sequence[int] | npt.NDArray[np.int64]
) -> ConditionImages | None:
    """Return the images of a generated method, or None where it has none.

    Parameters
    ----------
    folder : Path
        Holds one `<nsd_id>.png` per image.
    method : str
        Name of the row.
    nsd_id : int (n,)
        The images wanted, in this order.

    Raises
    ------
    StoreError
        Some images are missing of a method that is made for all of them, and its
        table does not call them unfinished; or the images differ in size.
    """
    wanted = [int(i) for i in nsd_id]
    found = [i for i in wanted if (folder / f"{i}.png").is_file()]
    condition = by_name().get(method)  # None: a step of the ablation
    partial = condition is None or condition.n_images != "all"
    known = len(found) == len(wanted) or partial
    if not known and not {*wanted} - {*found} <= {*_lost(folder.parent, method)}:
        raise StoreError(
            f"{folder} holds {len(found)} of {len(wanted)} images: run notebooks 03 "
            "and 04 for all shards of this subject first."
        )
    if not found:
        return None
    shape = store.read_png(folder / f"{found[0]}.png").shape
    images = np.empty((len(found), *shape), np.uint8)  # never held twice
    for row, number in enumerate(found):
        image = store.read_png(folder / f"{number}.png")
        if image.shape != shape:
            raise StoreError(
                f"{folder} holds images of different sizes: move it away and run"
                " notebooks 03 and 04 again."
            )
        images[row] = image
    return ConditionImages(method, np.array(found, dtype=np.int64), images)


def unfinished(folder: Path) -> dict[int, list[str]]:
    """Return the images that half precision could not make, with their methods.

    Parameters
    ----------
    folder : Path
        A subject's, with what notebooks 03 and 04 have written so far.
    """
    found: dict[int, list[str]] = {}
    for name in ("stage1.csv", "stage2.csv"):
        if (folder / name).is_file():
            table = store.read_table(folder / name)
            if "finished" in table:  # not in one of an earlier version
                lost = table[~table["finished"]]
                for image, method in zip(lost["nsd_id"], lost["method"], strict=True):
                    found.setdefault(int(image), []).append(str(method))
    return found


def _lost(folder: Path, method: str) -> list[int]:
    return [i for i, methods in unfinished(folder).items() if method in methods]


def conditions(
    tree: Tree,
    subject: int,
    truth: ConditionImages,
    made: Mapping[str, Images],
    *,
    ablations: Sequence[str] = (),
) -> Iterator[ConditionImages]:
    """Yield every compared method of a subject in the order of the tables.

    Parameters
    ----------
    tree : Tree
        Where the generated images are.
    subject : int
        Subject.
    truth : ConditionImages
        The true images that were reconstructed.
    made : mapping of uint8 (n, height, width, 3)
        Images of the methods that are made on the spot, row by row as `truth`; unread
        ones are read in their turn. A method that is neither here nor in a folder is
        left out.
    ablations : sequence of str
        Methods of the ablation, which come after these, for their own images.

    Raises
    ------
    ConfigError
        `made` names a method that notebooks 03 and 04 make, or none of the table.
    DataError
        `made` has another number or size of images than `truth`.
    StoreError
        As `read_condition`.
    """
    rows = compared()
    generated = {row.name for row in rows if row.engine} | {*ablations}
    for method, images in made.items():
        check_choice(method, [row.name for row in rows if not row.engine], "made")
        check_shape(images.shape, truth.images.shape, f"the images of {method}")
    for method in (*(row.name for row in rows), *ablations):
        if method in made:
            yield ConditionImages(method, truth.nsd_id, made[method][:])
        elif method in generated:
            folder = tree.stage_dir(subject, method)
            found = read_condition(folder, method, truth.nsd_id)
            if found is not None:
                yield found
            del found  # before the next one's images are read
