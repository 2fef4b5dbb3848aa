"""What every condition starts from, read from notebook 02's files.

A condition takes each of c, z and Z_CLIP from the brain, from the seen image, from
another image's brain, from another system's decoders, or not at all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minddiff_utils.core import store
from minddiff_utils.core.condition import Condition
from minddiff_utils.core.conditions import n_images_of
from minddiff_utils.core.errors import ConfigError, StoreError, check_choice
from minddiff_utils.core.images import resize, to_torch
from minddiff_utils.core.run import Run
from minddiff_utils.decoding.feature_selection import select_best
from minddiff_utils.generation.checkpoints import subject_of
from minddiff_utils.generation.presets import layers_of, uses_posterior
from minddiff_utils.generation.structural_loss import Likelihood, StructuralTarget
from minddiff_utils.models import Backbone

__all__ = ["DecodedFeatures", "Source", "SubjectFeatures", "with_k"]

#: Where the features of a subject's images come from.
Source = Literal["decoded", "true", "shuffled"]
#: What a target knows of each layer, beside its features.
_FACTS = ("selected", "scale", "mean")
#: What the decoder's errors make of the features.
_NOISE = "noise_model.h5"
#: Whose features stand for another image's brain.
_DONORS = "decoded_validation.h5"
#: Images that a sentence names.
_NAMED = 20


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
        return (self.z, self.c, *self.target.tensors)

    def rows(self, index: Sequence[int]) -> "DecodedFeatures":
        """Return some of the images."""
        rows = list(index)
        target = self.target.rows(rows)
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
                f"The loss is to have CLIP blocks {tuple(layers)}, but decoded were"
                f" {self.target.layers}: choose among them in ablation.layers, or"
                " change features.clip_layers."
            )
        return replace(self, target=self.target.of_layers(layers))


def with_k(
    target: StructuralTarget,
    r_cv: Mapping[int, npt.NDArray[np.floating]],
    k_percent: float,
) -> StructuralTarget:
    """Return the target with the k % best decodable features of each CLIP block.

    Parameters
    ----------
    r_cv : mapping of (n_targets,)
        Cross-validated correlation on training images, by block.
    """
    selected = {
        layer: torch.from_numpy(select_best(r_cv[layer], k_percent)).to(mask.device)
        for layer, mask in target.selected.items()
    }
    return replace(target, selected=selected)


class SubjectFeatures:
    """The features of one subject's images to reconstruct, by where they come from.

    Parameters
    ----------
    run : Run
        Of the subject; its shard does not matter.
    backbone : Backbone
        Gives shapes, device and precision.
    decoded : str
        The file of decoded features.
    n : int, optional
        Its first images; default: the profile's `data.n_reconstruct`.
    """

    def __init__(
        self,
        run: Run,
        backbone: Backbone,
        *,
        decoded: str = "decoded.h5",
        n: int | None = None,
    ) -> None:
        self.run, self.backbone = run, backbone
        self._decoded, self._n = decoded, n
        self._read: dict[Source, DecodedFeatures] = {}

    def path(self, name: str = "") -> Path:
        """Return a file of the subject; default: that of the decoded features."""
        return self.run.tree.derived(subject_of(self.run)) / (name or self._decoded)

    def of(self, source: Source) -> DecodedFeatures:
        """Return all features of all images from one source.

        Parameters
        ----------
        source : {"decoded", "true", "shuffled"}
            Decoded from the brain; extracted from the seen image; or decoded from the
            brain's response to a validation image, which is the floor: no image that is
            evaluated is among the donors, whose own mates would then be among the
            competitors. The donor of an image does not depend on `n`.

        Raises
        ------
        ConfigError
            Another source, or a CLIP layer that the backbone does not have.
        DataError
            `selected` or `scale` does not fit a layer's features.
        StoreError
            A file does not hold the backbone's features, or no validation image was
            decoded.
        """
        if source not in self._read:
            self._read[source] = self._features(source)
        return self._read[source]

    def _features(self, source: Source) -> DecodedFeatures:
        check_choice(source, ("decoded", "true", "shuffled"), "source")
        backbone, layers = self.backbone, self.run.profile.features.clip_layers
        for layer in layers:
            check_choice(
                layer, range(1, len(backbone.layer_widths) + 1), "A CLIP layer"
            )
        shapes: dict[str, tuple[int, ...]] = {
            "c": (backbone.n_tokens, backbone.text_dim),
            "z": backbone.latent_shape,
            **{f"clip/{k}": (backbone.layer_widths[k - 1],) for k in layers},
        }
        facts = [f"clip/{k}/{fact}" for k in layers for fact in _FACTS]
        kind = "true" if source == "true" else "decoded"
        names = {name: f"{name}/{kind}" for name in shapes}
        stored = store.read_arrays(self.path(), ["nsd_id", *names.values(), *facts])
        n = self._n or self.run.profile.data.n_reconstruct or len(stored["nsd_id"])
        rows = list(range(min(n, len(stored["nsd_id"]))))
        ids, donors = stored["nsd_id"][rows], stored
        if source == "shuffled":
            donors = store.read_arrays(self.path(_DONORS), ["nsd_id", *names.values()])
            rows = self._donor_rows(len(donors["nsd_id"]), len(rows))
        read = {
            name: self._tensor(donors, names[name], shape)[rows]
            for name, shape in shapes.items()
        }
        known = {
            fact: {k: self._on_device(stored[f"clip/{k}/{fact}"]) for k in layers}
            for fact in _FACTS
        }
        seen = {k: read[f"clip/{k}"] for k in layers}
        likelihood = self._likelihood(source, seen, rows)
        target = StructuralTarget(seen, **known, likelihood=likelihood)
        return DecodedFeatures(ids, read["z"], read["c"], target)

    def _on_device(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.backbone.device)

    def _likelihood(
        self, source: Source, seen: Mapping[int, Tensor], rows: Sequence[int]
    ) -> dict[int, Likelihood]:
        """Return the likelihood of each layer; empty where no noise model was kept.

        What a decoder would say of true features without errors stands in for what was
        decoded where the source is the seen image.
        """
        if not (path := self.path(_NOISE)).exists():
            return {}
        noise = store.read_arrays(
            path, [f"clip/{k}/{part}" for k in seen for part in ("map", "shift")]
        )
        decoded: Mapping[str, npt.NDArray[Any]] = {}
        if source != "true":
            file = self.path(_DONORS if source == "shuffled" else "")
            decoded = store.read_arrays(file, [f"clip/{k}/whitened" for k in seen])
        found = {}
        for k, features in seen.items():
            parts = [self._on_device(noise[f"clip/{k}/{n}"]) for n in ("map", "shift")]
            if source == "true":
                whitened = features.to(parts[0].dtype) @ parts[0].T + parts[1]
            else:
                whitened = self._on_device(decoded[f"clip/{k}/whitened"][rows])
            found[k] = Likelihood(parts[0], parts[1], whitened)
        return found

    def _donor_rows(self, n_donors: int, n: int) -> list[int]:
        """Return which validation image stands for each image, in turn."""
        if not n_donors:
            raise StoreError(
                f"{self.path(_DONORS)} holds no image, but a shuffled condition takes"
                " its features from validation images: raise data.n_validation."
            )
        return [(row + 1) % n_donors for row in range(n)]

    def _tensor(
        self, stored: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...]
    ) -> Tensor:
        """Return a feature of all images in the backbone's shape and precision."""
        n_images, values = len(stored["nsd_id"]), stored[name]
        if values.shape != (n_images, math.prod(shape)):
            raise StoreError(
                f"{self.path()}, {name}: shape {values.shape}, but"
                f" {self.backbone.name} needs {(n_images, math.prod(shape))}: run"
                " notebook 02 again."
            )
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.reshape(n_images, *shape).to(
            self.backbone.device, self.backbone.dtype
        )

    @property
    def nsd_id(self) -> npt.NDArray[np.int64]:
        """Return the images to reconstruct, (n,)."""
        return self.of("decoded").nsd_id

    def of_condition(self, row: Condition) -> DecodedFeatures:
        """Return what a condition's images start from, as many as it has.

        A feature that is left out is the empty caption, a latent of 0, which noise
        replaces, or a target that nobody reads.
        """
        target = self.of(cast(Source, row.clip or "decoded")).target
        if row.k_percent is not None:
            target = with_k(target, self._r_cv, row.k_percent)
        features = DecodedFeatures(self.nsd_id, self._z(row), self._c(row), target)
        if row.clip is not None:
            features = features.with_layers(layers_of(row, self.run.profile))
        n = n_images_of(row, self.run.profile, len(self.nsd_id))
        return features.rows(range(n))

    def _c(self, row: Condition) -> Tensor:
        like = self.of("decoded").c
        if row.c is None:
            return self.backbone.null_text().expand_as(like).clone()
        if row.c == "own":
            return self._own(f"{row.name}/c", like)
        if row.c != "true" and uses_posterior(row, self.run.profile):
            return self._posterior(like, is_shuffled=row.c == "shuffled")
        return self.of(cast(Literal["decoded", "true", "shuffled"], row.c)).c

    def _posterior(self, like: Tensor, *, is_shuffled: bool) -> Tensor:
        """Return the posterior mean of c, or that from another image's brain."""
        path = self.path(_DONORS if is_shuffled else "")
        stored = store.read_arrays(path, ["nsd_id", "c/posterior"])
        c = self._tensor(stored, "c/posterior", tuple(like.shape[1:]))
        return c[self._donor_rows(len(c), len(like))] if is_shuffled else c[: len(like)]

    def _z(self, row: Condition) -> Tensor:
        like = self.of("decoded").z
        if row.z is None:
            return torch.zeros_like(like)
        if row.z == "own":
            return self._own(f"{row.name}/z", like)
        if row.z == "pixels":
            return self._pixel_latents
        return self.of(cast(Source, row.z)).z

    @cached_property
    def _r_cv(self) -> dict[int, npt.NDArray[Any]]:
        layers = self.run.profile.features.clip_layers
        names = {layer: f"clip/{layer}/r_cv" for layer in layers}
        stored = store.read_arrays(self.path("decoders.h5"), list(names.values()))
        return {layer: stored[name] for layer, name in names.items()}

    def _systems(self, name: str) -> npt.NDArray[Any]:
        """Return what notebook 02 decoded for another system, of these images.

        Raises
        ------
        StoreError
            The file is missing, or is of other images.
        """
        path, n = self.path("decoded_systems.h5"), len(self.nsd_id)
        stored = store.read_arrays(path, ["nsd_id", name])
        if not np.array_equal(stored["nsd_id"][:n], self.nsd_id):
            raise StoreError(
                f"{path} is not of the images to reconstruct: run notebook 02 of this"
                " subject again."
            )
        return stored[name][:n]

    def _own(self, name: str, like: Tensor) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(self._systems(name)))
        return tensor.reshape(like.shape).to(like)

    def pixels(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        """Return an image of pixels of notebook 02, (n, size, size, 3).

        `name`: "pixel_ridge", those that ridge reads from voxels, or "posterior_image",
        the mean of the training images over the posterior of their captions.
        """
        pixels = self._systems(name)
        side = round((pixels.shape[1] / 3) ** 0.5)
        scaled = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
        return resize(scaled.reshape(len(pixels), side, side, 3), size)

    @cached_property
    def _pixel_latents(self) -> Tensor:
        images = self.pixels("pixel_ridge", self.backbone.image_size)
        size = self.backbone.at_once(self.run.profile.models.batch_size)
        blocks = (images[k : k + size] for k in range(0, len(images), size))
        encode, device = self.backbone.encode_images, self.backbone.device
        with torch.no_grad():
            return torch.cat([encode(to_torch(x).to(device)) for x in blocks])

    def describe(self) -> str:
        """Say which of the test images are reconstructed, and why not all.

        Raises
        ------
        ConfigError
            The subject saw so few images that the run's shard has none.
        """
        run = self.run
        nsd_id = store.read_arrays(self.path(), ["nsd_id"])["nsd_id"]
        n_test, asked = len(nsd_id), run.profile.data.n_reconstruct
        n = n_test if asked is None else min(asked, n_test)
        if not run.batches(n):
            raise ConfigError(
                f"Subject {run.subject} has {n} images to reconstruct, too few for"
                f" {run.shard[1]} shards in batches of {run.profile.models.batch_size}:"
                " ask for fewer shards."
            )
        if n < n_test:
            left = ", ".join(map(str, nsd_id[n:][:_NAMED]))
            more = f" and {n_test - n - _NAMED} more" if n_test - n > _NAMED else ""
            return (
                f"{n} of {n_test} test images are reconstructed, the first of the"
                f" subject's list, as data.n_reconstruct is {n} (null: all). Left out,"
                f" by nsd_id: {left}{more}."
            )
        if asked is not None and asked > n_test:
            return (
                f"All {n_test} test images are reconstructed: data.n_reconstruct asks"
                f" for {asked}, but this subject saw no more in the sessions that were"
                " read."
            )
        return f"All {n_test} test images are reconstructed."
