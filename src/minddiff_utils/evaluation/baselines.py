"""The compared methods: what each row of the tables is, and where its images are.

Simple methods that use no generator are made here (nearest training image, mean
training image); generated ones are read from the folders that notebooks 03 and 04
wrote. Not here: scores. Place in the flow: layer 8; notebook 05 calls it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core import store
from minddiff_utils.core.config import Stage2Config
from minddiff_utils.core.errors import DataError, StoreError, check_choice, check_shape
from minddiff_utils.core.rows import Images, in_blocks
from minddiff_utils.core.run import Tree
from minddiff_utils.evaluation.metrics import Condition

__all__ = [
    "CEILINGS",
    "GENERATED",
    "METHODS",
    "conditions",
    "in_batches",
    "mean_image",
    "method_words",
    "read_condition",
    "repeat_image",
    "unfinished",
]

Floats = npt.NDArray[np.floating]

#: Rows of the tables: name -> what it is.
METHODS: Mapping[str, str] = {
    "stage1": "stage 1: decoded c and z",
    "stage2": "stage 2 (MindDiffuser): aligned with decoded Z_CLIP",
    "stage2_guided": "sampling steered by Z_CLIP (not Algorithm 1)",
    "stage2_combined": "a short stage 2, then steered sampling (not Algorithm 1)",
    "stage2_paper": "stage 2 by Algorithm 1, first images only",
    "z_only": "decoded z through the autoencoder, no c",
    "c_only": "decoded c from noise, no z",
    "takagi": "Takagi & Nishimoto: z from early, c from higher areas, no stage 2",
    "takagi_minddiffuser": "Takagi as MindDiffuser re-implemented it: all areas",
    "brain_diffuser_style": "Brain-Diffuser's style: pixels read, then c and CLIP",
    "pixel_ridge": "ridge from voxels to pixels",
    "retrieval": "nearest training image by decoded features",
    "random_train": "a training image at random: floor",
    "mean_image": "mean training image, the same for every brain",
    "true_features": "true c and z: recovery ceiling of stage 1",
    "stage2_true": "true c, z and Z_CLIP: recovery ceiling of stage 2",
    "shuffled": "stage 1 from another image's brain: floor",
    "stage2_shuffled": "stage 2 from another image's brain: floor",
    "permuted_voxels": "stage 1 from responses with permuted voxels: floor",
    "autoencoder": "true image through the autoencoder and back",
}
#: The methods whose images notebooks 03 and 04 write, one folder each.
GENERATED = (
    "stage1",
    "stage2",
    "stage2_guided",
    "stage2_combined",
    "stage2_paper",
    "z_only",
    "c_only",
    "takagi",
    "takagi_minddiffuser",
    "brain_diffuser_style",
    "true_features",
    "stage2_true",
    "shuffled",
    "stage2_shuffled",
    "permuted_voxels",
)
#: Method -> the method that had the true features instead of the decoded ones.
CEILINGS: Mapping[str, str] = {
    "stage1": "true_features",
    "z_only": "true_features",
    "c_only": "true_features",
    "shuffled": "true_features",
    "takagi": "true_features",
    "takagi_minddiffuser": "true_features",
    "permuted_voxels": "true_features",
    "stage2": "stage2_true",
    "stage2_guided": "stage2_true",
    "stage2_combined": "stage2_true",
    "stage2_paper": "stage2_true",
    "stage2_shuffled": "stage2_true",
    "true_features": "autoencoder",
    "stage2_true": "autoencoder",
}
#: Generated for the first images only, so fewer images are no fault.
_PARTIAL = frozenset(
    {"stage2_combined", "stage2_paper", "stage2_true", "stage2_shuffled"}
)


def method_words(n_iter_paper: int) -> dict[str, str]:
    """Return `METHODS`; Algorithm 1 cut short says so.

    >>> method_words(2)["stage2_paper"]
    'stage 2 by 2 of the 300 iterations of Algorithm 1, first images only'
    """
    whole, words = Stage2Config().n_iter_paper, dict(METHODS)
    if n_iter_paper < whole:
        few = f"{n_iter_paper} of the {whole} iterations of Algorithm 1"
        words["stage2_paper"] = f"stage 2 by {few}, first images only"
    return words


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
) -> Condition | None:
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
    partial = method in _PARTIAL or method not in METHODS  # an ablation
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
    return Condition(method, np.array(found, dtype=np.int64), images)


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
    truth: Condition,
    made: Mapping[str, Images],
    *,
    ablations: Sequence[str] = (),
) -> Iterator[Condition]:
    """Yield every compared method of a subject in the order of `METHODS`.

    Parameters
    ----------
    tree : Tree
        Where the generated images are.
    subject : int
        Subject.
    truth : Condition
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
        `made` names a method that notebooks 03 and 04 make, or none of `METHODS`.
    DataError
        `made` has another number or size of images than `truth`.
    StoreError
        As `read_condition`.
    """
    for method, images in made.items():
        check_choice(method, [m for m in METHODS if m not in GENERATED], "made")
        check_shape(images.shape, truth.images.shape, f"the images of {method}")
    for method in (*METHODS, *ablations):
        if method in made:
            yield Condition(method, truth.nsd_id, made[method][:])
        elif method in GENERATED or method in ablations:
            folder = tree.stage_dir(subject, method)
            found = read_condition(folder, method, truth.nsd_id)
            if found is not None:
                yield found
            del found  # before the next one's images are read
