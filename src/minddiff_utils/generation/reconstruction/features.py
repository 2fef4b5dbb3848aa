"""The decoded features of the images to reconstruct, read from notebook 02's files.

Place in the flow: part of `reconstruction`, before `stage1` and `stage2`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minddiff_utils.core import store
from minddiff_utils.core.errors import ConfigError, StoreError, check_choice
from minddiff_utils.core.run import Run
from minddiff_utils.generation.critic import StructuralTarget
from minddiff_utils.models import Backbone

__all__ = ["DecodedFeatures", "Source", "chosen_words", "read_decoded"]

#: Where the features of a condition come from.
Source = Literal["decoded", "true", "shuffled"]


@dataclass(frozen=True)
class DecodedFeatures:
    """The features of the images to reconstruct, as tensors on the backbone's device.

    Attributes
    ----------
    nsd_id : (n,) int64
        The images.
    z : Tensor
        Latents (n, C, h, w).
    c : Tensor
        Text sequences (n, n_tokens, d).
    target : StructuralTarget
        CLIP features, the selected ones, and their training scale.
    """

    nsd_id: npt.NDArray[np.int64]
    z: Tensor
    c: Tensor
    target: StructuralTarget

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that an image can depend on."""
        clip = self.target
        parts = (clip.features, clip.selected, clip.scale, clip.residual)
        arrays = [part[k] for part in parts for k in clip.layers if k in part]
        return (self.z, self.c, *arrays)

    def rows(self, index: Sequence[int]) -> "DecodedFeatures":
        """Return some of the images."""
        rows = list(index)
        clip = {k: v[rows] for k, v in self.target.features.items()}
        target = replace(self.target, features=clip)
        return DecodedFeatures(self.nsd_id[rows], self.z[rows], self.c[rows], target)

    def parts(self, size: int) -> "list[DecodedFeatures]":
        """Return all images in order, `size` or fewer at a time."""
        rows = range(len(self.nsd_id))
        return [self.rows(rows[k : k + size]) for k in rows[::size]]

    def with_layers(self, layers: Sequence[int]) -> "DecodedFeatures":
        """Return the features with some of the CLIP layers in the target.

        Raises
        ------
        ConfigError
            A layer was not decoded.
        """
        strange = sorted(set(layers) - set(self.target.layers))
        if strange or not layers:
            raise ConfigError(
                f"stage2.layers_fast is {tuple(layers)}, but the decoded layers are"
                f" {self.target.layers}: choose among them, or change"
                " features.clip_layers."
            )
        whole = self.target
        parts = (whole.features, whole.selected, whole.scale, whole.residual)
        target = StructuralTarget(
            *({k: part[k] for k in layers if k in part} for part in parts)
        )
        return replace(self, target=target)

    def without_z(self) -> "DecodedFeatures":
        """Return the features with latents of 0, which noise replaces."""
        return replace(self, z=torch.zeros_like(self.z))

    def without_c(self, backbone: Backbone) -> "DecodedFeatures":
        """Return the features with the empty caption's text for every image."""
        return replace(self, c=backbone.null_text().expand_as(self.c).clone())


#: Images that a sentence names.
_NAMED = 20


def chosen_words(run: Run, path: Path) -> str:
    """Return which of a subject's test images are reconstructed, and why not all.

    Parameters
    ----------
    run : Run
        Of the subject; `data.n_reconstruct` may ask for more than the subject saw.
    path : Path
        `decoded.h5` of notebook 02.

    Raises
    ------
    ConfigError
        The subject saw so few images that the run's shard has none.
    """
    nsd_id = store.read_arrays(path, ["nsd_id"])["nsd_id"]
    n_test, asked = len(nsd_id), run.profile.data.n_reconstruct
    n = n_test if asked is None else min(asked, n_test)
    if not run.batches(n):
        raise ConfigError(
            f"Subject {run.subject} has {n} images to reconstruct, too few for"
            f" {run.shard[1]} shards in batches of {run.profile.models.batch_size}: ask"
            " for fewer shards."
        )
    if n < n_test:
        left = ", ".join(map(str, nsd_id[n:][:_NAMED]))
        more = f" and {n_test - n - _NAMED} more" if n_test - n > _NAMED else ""
        return (
            f"{n} of {n_test} test images are reconstructed, the first of the subject's"
            f" list, as data.n_reconstruct is {n} (null: all). Left out, by nsd_id:"
            f" {left}{more}."
        )
    if asked is not None and asked > n_test:
        return (
            f"All {n_test} test images are reconstructed: data.n_reconstruct asks for"
            f" {asked}, but this subject saw no more in the sessions that were read."
        )
    return f"All {n_test} test images are reconstructed."


def read_decoded(
    path: Path,
    backbone: Backbone,
    layers: Sequence[int],
    *,
    n: int | None,
    source: Source,
) -> DecodedFeatures:
    """Read the first `n` test images' features from `decoded.h5`.

    Parameters
    ----------
    path : Path
        Written by notebook 02.
    backbone : Backbone
        Gives shapes, device and precision.
    layers : sequence of int
        CLIP layers of the profile.
    n : int or None
        Images to reconstruct; all where there are not so many, or where it is None.
    source : {"decoded", "true", "shuffled"}
        Decoded from the brain; extracted from the seen image; or decoded from the
        brain's response to the file's next test image (the last one takes the first),
        which is the floor. The donor of an image does not depend on `n`.

    Raises
    ------
    ConfigError
        Another source, or a CLIP layer that the backbone does not have.
    DataError
        `selected` or `scale` does not fit a layer's features.
    StoreError
        The file does not hold the backbone's features or, for shuffled, no other image.
    """
    check_choice(source, ("decoded", "true", "shuffled"), "source")
    for layer in layers:
        check_choice(layer, range(1, len(backbone.layer_widths) + 1), "A CLIP layer")
    kind = "true" if source == "true" else "decoded"
    shapes = _shapes(backbone, layers)
    facts = [
        f"clip/{k}/{fact}" for k in layers for fact in ("selected", "scale", "residual")
    ]
    wanted = [f"{name}/{kind}" for name in shapes]
    stored = store.read_arrays(path, ["nsd_id", *wanted, *facts])
    rows = _rows(path, len(stored["nsd_id"]), n, source)
    read = {
        name: _tensor(path, stored, f"{name}/{kind}", shape, backbone)[rows]
        for name, shape in shapes.items()
    }
    fact = {name: torch.from_numpy(stored[name]).to(backbone.device) for name in facts}
    target = StructuralTarget(
        features={k: read[f"clip/{k}"] for k in layers},
        selected={k: fact[f"clip/{k}/selected"] for k in layers},
        scale={k: fact[f"clip/{k}/scale"] for k in layers},
        residual={k: fact[f"clip/{k}/residual"] for k in layers},
    )
    return DecodedFeatures(stored["nsd_id"][:n], read["z"], read["c"], target)


def _shapes(backbone: Backbone, layers: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of one image's features by name."""
    clip = {f"clip/{k}": (backbone.layer_widths[k - 1],) for k in layers}
    c = (backbone.n_tokens, backbone.text_dim)
    return {"c": c, "z": backbone.latent_shape, **clip}


def _rows(path: Path, n_stored: int, n: int | None, source: Source) -> list[int]:
    """Return which of the file's rows stand for the first `n` images."""
    n = n_stored if n is None else min(n, n_stored)
    if source != "shuffled":
        return list(range(n))
    if n_stored < 2:
        raise StoreError(
            f"{path} holds {n_stored} test image, but a shuffled condition needs 2 or"
            " more: raise simulation.n_test_images or data.sessions."
        )
    return [(row + 1) % n_stored for row in range(n)]


def _tensor(
    path: Path,
    stored: Mapping[str, npt.NDArray[Any]],
    name: str,
    shape: tuple[int, ...],
    backbone: Backbone,
) -> Tensor:
    """Return a stored feature of all images in the backbone's shape and precision."""
    n_images, values = len(stored["nsd_id"]), stored[name]
    if values.shape != (n_images, math.prod(shape)):
        raise StoreError(
            f"{path}, {name}: shape {values.shape}, but {backbone.name} needs"
            f" {(n_images, math.prod(shape))}: run notebook 02 again."
        )
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.reshape(n_images, *shape).to(backbone.device, backbone.dtype)
