"""The rules of k: how many of the features of Z_CLIP to keep (C8), and why (O5).

Frozen as those of `rules`; all compare stage 1's sampling steered by Z_CLIP, in SSIM.
"""

from dataclasses import replace
from typing import Literal

from minddiff_utils.core.conditions import NOISE_WEIGHTS, k_name
from minddiff_utils.evaluation.claims.evidence import (
    SHORT,
    Endpoint,
    Evidence,
    NotTestableError,
)

__all__ = ["accuracy_against_information", "balance_of_k", "weights_for_k"]

#: The paper's choice of k, in percent.
K_PAPER = 25.0


def balance_of_k(evidence: Evidence) -> list[Endpoint]:
    """Decide C8: small k decodes better, and quality is best inside the range of k.

    Accuracy on test images of the features that the smallest k keeps, minus that of all
    features, mean over layers (unit: subject). SSIM of the images at k = 25 above those
    at the smallest and at the largest k, so that the optimum is inside. That more
    features hold more variance is no endpoint: it is so by construction.
    """
    table = evidence.table("k_selection")
    if table.empty:
        raise NotTestableError("no k-selection table in this run")
    means = table.groupby([table["subject"].astype(str), "k_percent"])[
        "r_selected_mean"
    ].mean()
    wide = means.unstack()
    few, every = wide.columns.min(), wide.columns.max()
    fall = wide[few] - wide[every]
    name = f"accuracy at k = {few:g} minus {every:g}"
    accuracy = evidence.subject_mean(fall, name, "r")
    ks, best = _ladder(evidence, "decoded"), []
    if len(ks) < 3 or not ks[0] < K_PAPER < ks[-1]:
        raise NotTestableError(
            f"images were not made at k = {K_PAPER:g} and on both sides"
        )
    for end in (ks[0], ks[-1]):
        pair = evidence.contrast(k_name(K_PAPER), k_name(end), "ssim_2d")
        best.append(replace(pair, name=f"images at k = {K_PAPER:g} minus {end:g}"))
    return [accuracy, *best]


def _ladder(evidence: Evidence, clip: Literal["decoded", "true"]) -> list[float]:
    """Return every k at which there are images, ascending."""
    prefix = k_name(0, clip).removesuffix("0")
    scores = evidence.table("scores")
    names = {str(m) for m in set(scores["method"])} if len(scores) else set()
    return sorted(float(m.removeprefix(prefix)) for m in names if m.startswith(prefix))


def accuracy_against_information(evidence: Evidence) -> list[Endpoint]:
    """Decide O5a: few features tell less, and are decoded better.

    With true Z_CLIP nothing but information is lost: SSIM of the images at the largest
    k above that at the smallest. That loss is larger than the same with decoded Z_CLIP,
    on the same images, where the features that are kept are decoded better.
    """
    ks = _ladder(evidence, "true")
    if len(ks) < 2:
        raise NotTestableError("no images from true Z_CLIP at two k")
    few, every = ks[0], ks[-1]
    lost = evidence.contrast(k_name(every, "true"), k_name(few, "true"), "ssim_2d")
    evidence.contrast(k_name(every), k_name(few), "ssim_2d")  # says if they are missing
    losses = [
        evidence.matrices().contrast(k_name(every, clip), k_name(few, clip), "ssim_2d")
        for clip in ("true", "decoded")
    ]
    words = f"images at k = {every:g} minus {few:g}"
    about = (f"{words}, true minus decoded Z_CLIP", SHORT["ssim_2d"])
    why = "true and decoded Z_CLIP share no image"
    regained = evidence.mean(losses[0] - losses[1], *about, why)
    return [replace(lost, name=f"true Z_CLIP: {words}"), regained]


def weights_for_k(evidence: Evidence) -> list[Endpoint]:
    """Decide O5b: weights by the decoder's errors do better than any k, in SSIM."""
    ks = _ladder(evidence, "decoded")
    if len(ks) < 2:
        raise NotTestableError("images were not made at two k")
    pairs = [evidence.contrast(NOISE_WEIGHTS, k_name(k), "ssim_2d") for k in ks]
    return [
        replace(pair, name=f"weights by errors minus k = {k:g}")
        for k, pair in zip(ks, pairs, strict=True)
    ]
