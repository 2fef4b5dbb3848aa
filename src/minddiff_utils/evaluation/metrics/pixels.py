"""Scores of pairs of images by their pixels: no network.

Three functions, and `PIXEL_SCORES`, which has each at the size given and along three
published paths to 425 px (`registry.Metric.path`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.rows import Images
from minddiff_utils.core.types import Floats

__all__ = [
    "PIXEL_SCORES",
    "pixel_correlation",
    "ssim_2d",
    "ssim_2d_with_floor",
    "ssim_percolumn_legacy",
]

_logger = logging.getLogger(__name__)

Picture = npt.NDArray[np.uint8]
#: Makes RGB floats of one uint8 image: in 0..1 for SSIM.
_Convert = Callable[[Picture], Floats]

#: Gaussian window of SSIM (Wang et al. 2004): sigma in px.
_SSIM_SIGMA = 1.5
#: Side of that window in px: no image may be smaller.
_SSIM_WINDOW = 11
#: Sides in px of published evaluations: as MindEye stores images, and as all score.
_STORED, _SCORED = 256, 425


def _check_pairs(images_a: Images, images_b: Images) -> None:
    check_shape(images_a.shape, (None, None, None, 3), "the first image set")
    check_shape(images_b.shape, images_a.shape, "the second image set")
    for images in (images_a, images_b):
        if images.dtype != np.uint8:
            raise DataError(
                f"Images are {images.dtype}, but uint8 RGB is expected: convert first."
            )


def _as_bytes(image: Picture) -> Floats:
    return image.astype(np.float64)  # of 0..255: no correlation depends on the scale


def _as_given(image: Picture) -> Floats:
    return image.astype(np.float64) / 255.0


def _resized_twice(image: Picture, *, antialias: bool) -> Floats:
    """Return the image at 425 x 425 px, by way of 256 px, never rounded between.

    As torchvision resizes tensors, bilinear; without antialiasing (up to 0.16) a
    reduction drops pixels.
    """
    import torch  # slow import
    from torch.nn import functional

    x = torch.from_numpy(_as_given(image)).permute(2, 0, 1)[None]  # (1, 3, h, w)
    for side in (_STORED, _SCORED):
        size = (side, side)
        x = functional.interpolate(x, size=size, mode="bilinear", antialias=antialias)
    return np.asarray(x[0].permute(1, 2, 0).numpy())


def _at_once(image: Picture) -> Floats:
    """Return the image at 425 x 425 px, in 8 bits; one of that size is unchanged."""
    return _as_given(np.asarray(Image.fromarray(image).resize((_SCORED, _SCORED))))


def _ssim(
    images_a: Images,
    images_b: Images,
    channel_axis: int | None,
    convert: _Convert,
) -> Floats:
    _check_window(images_a, images_b)
    # one pair at a time: all images of a full test set as float64 take gigabytes
    values = [
        structural_similarity(
            *(np.asarray(rgb2gray(convert(x))) for x in pair),  # (h, w) in 0..1
            data_range=1.0,
            gaussian_weights=True,
            sigma=_SSIM_SIGMA,
            use_sample_covariance=False,
            channel_axis=channel_axis,
        )
        for pair in zip(images_a, images_b, strict=True)
    ]
    return np.array(values, np.float64)


def _check_window(images_a: Images, images_b: Images) -> None:
    _check_pairs(images_a, images_b)
    height, width = images_a.shape[1:3]
    if min(height, width) < _SSIM_WINDOW:
        raise DataError(
            f"Images of {height} x {width} px are smaller than SSIM's window of "
            f"{_SSIM_WINDOW} px: score larger ones."
        )


@dataclass(frozen=True)
class _Windowed:
    """A gray image with its mean and variance under SSIM's window, (h, w) each."""

    gray: Floats
    mean: Floats
    variance: Floats


def _window(images: Floats) -> Floats:
    """Return the means (..., h, w) under SSIM's window, 11 x 11 px."""
    return np.asarray(gaussian_filter(images, _SSIM_SIGMA, truncate=3.5, axes=(-2, -1)))


def _windowed(image: Picture) -> _Windowed:
    gray = np.asarray(rgb2gray(_as_given(image)))
    mean, square = _window(np.stack([gray, gray * gray]))
    return _Windowed(gray, mean, square - mean * mean)


def _ssim_windowed(a: _Windowed, others: Sequence[_Windowed]) -> Floats:
    """Return `structural_similarity` with each of some images, by known moments."""
    products = _window(np.stack([a.gray * b.gray for b in others]))
    c1, c2 = 0.01**2, 0.03**2  # of a data range of 1
    edge, scores = _SSIM_WINDOW // 2, []
    for b, product in zip(others, products, strict=True):
        covariance = product - a.mean * b.mean
        score = (2 * a.mean * b.mean + c1) * (2 * covariance + c2)
        score /= (a.mean**2 + b.mean**2 + c1) * (a.variance + b.variance + c2)
        scores.append(score[edge:-edge, edge:-edge].mean())
    return np.array(scores, np.float64)


def ssim_2d_with_floor(
    images: Images, truth: Images, n_others: int
) -> tuple[Floats, Floats]:
    """Return `ssim_2d` of each pair, and its mean with the next `n_others` true images.

    Each image is looked at once: the moments of a true image under the window are kept
    while the images before it need them. `n_others` is at most n - 1.
    """
    _check_window(images, truth)
    n = len(truth)
    known = lru_cache(n_others + 1)(lambda k: _windowed(truth[k]))
    rows = []
    for i, image in enumerate(images):
        others = [known((i + k) % n) for k in range(n_others + 1)]
        rows.append(_ssim_windowed(_windowed(image), others))
    scores = np.stack(rows)
    return scores[:, 0], scores[:, 1:].mean(axis=1)


def ssim_2d(
    images_a: Images, images_b: Images, *, convert: _Convert = _as_given
) -> Floats:
    """Return the structural similarity of each pair of images, float64 (n,) in [-1, 1].

    Gray by Rec. 709 weights, Gaussian window of sigma 1.5 (11 x 11 px), population
    covariance, data range 1, at the size given. What scikit-image 0.20 and later
    compute for the call that most fMRI papers share. Of RGB images, uint8 (n, height,
    width, 3), at least 11 px a side, or DataError; their order does not matter.
    `convert` makes RGB floats in 0..1 of an image.

    References
    ----------
    Wang et al. (2004), Image quality assessment, IEEE TIP 13(4), equation 13.
    """
    return _ssim(images_a, images_b, None, convert)


def ssim_percolumn_legacy(
    images_a: Images, images_b: Images, *, convert: _Convert = _as_given
) -> Floats:
    """Return the mean of one-dimensional SSIMs over the columns, else as `ssim_2d`.

    The published calls pass `multichannel=True` with gray images. Up to scikit-image
    0.19 each column was then a channel of its own, so that the score is a mean of 1-D
    SSIMs: usually higher than `ssim_2d`, and never to be compared with it.
    """
    return _ssim(images_a, images_b, -1, convert)


def pixel_correlation(
    images_a: Images, images_b: Images, *, convert: _Convert = _as_bytes
) -> Floats:
    """Return Pearson's r over all RGB values of each pair, at the size given.

    Of uint8 (n, height, width, 3) float64 (n,) in [-1, 1]. An image of one colour has
    no correlation; it scores 0 and is counted in the log.
    """
    _check_pairs(images_a, images_b)
    pairs = zip(images_a, images_b, strict=True)  # one at a time, to spare memory
    values = np.array([_pearson(a, b, convert) for a, b in pairs], dtype=np.float64)
    flat = np.isnan(values)
    if flat.any():
        _logger.warning("%d of %d pairs do not vary: scored 0", flat.sum(), len(values))
    return np.where(flat, 0.0, values)


def _pearson(image_a: Picture, image_b: Picture, convert: _Convert) -> float:
    """Return Pearson's r of two images, NaN where one has a single value."""
    if np.ptp(image_a) == 0 or np.ptp(image_b) == 0:
        return float("nan")
    a, b = (convert(image).ravel() for image in (image_a, image_b))
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


#: Suffix of a metric's name -> how images reach 425 px.
_PATHS: Mapping[str, _Convert] = {
    "_425": partial(_resized_twice, antialias=True),
    "_425_no_aa": partial(_resized_twice, antialias=False),
    "_425_only": _at_once,
}
_SCORES: dict[str, Callable[..., Floats]] = {
    "ssim_2d": ssim_2d,
    "ssim_percolumn_legacy": ssim_percolumn_legacy,
    "pcc": pixel_correlation,
}
#: By metric.
PIXEL_SCORES: Mapping[str, Callable[[Images, Images], Floats]] = _SCORES | {
    name + suffix: partial(score, convert=convert)
    for suffix, convert in _PATHS.items()
    for name, score in _SCORES.items()
}
