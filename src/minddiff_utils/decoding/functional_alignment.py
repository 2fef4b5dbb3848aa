"""A new subject read by the decoders of a trained one, without a shared image.

Each subject of NSD has training images of its own; what all of them saw tests. So the
trained subject's encoding model predicts how it would have responded to the new
subject's images, ridge takes the new responses there, and its decoders read on.

References
----------
Haxby et al. (2011), Neuron 72 (hyperalignment). Ferrante et al. (2024), Through their
eyes: multi-subject brain decoding with simple alignment techniques, Imaging
Neuroscience 2. Scotti et al. (2024), MindEye2 (one hour of data).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minddiff_utils.core.types import Matrix
from minddiff_utils.decoding._grouped import predict_features
from minddiff_utils.decoding.ridge import RidgeGCV
from minddiff_utils.decoding.targets import TargetScaling

__all__ = ["NewSubject", "TrainedSubject"]

Features = Mapping[str, Matrix]


@dataclass(frozen=True)
class NewSubject:
    """Training images of a new subject and its responses to them.

    `X`: (n_images, n_new_voxels); `Y`: features (n_images, n_features) of the same.
    """

    X: Matrix
    Y: Features


@dataclass(frozen=True)
class TrainedSubject(NewSubject):
    """Training images of a subject that has decoders, and its responses to them."""

    def reads(
        self, parts: Sequence[NewSubject], X_test: Matrix
    ) -> list[dict[str, Matrix]]:
        """Return what its decoders say of a new subject's test responses.

        For each of several parts of the new subject's data: features by name, (n_test,
        n_features), in their own units. Only training images of the two take part.

        Parameters
        ----------
        parts : sequence of NewSubject
            Of one subject, as much of its data as there is each time.
        X_test : (n_test, n_new_voxels)
        """
        as_trained = self._encoded([part.Y for part in parts])
        aligned = [
            RidgeGCV().fit_predict(part.X, self._as_variable(predicted), X_test)
            for part, predicted in zip(parts, as_trained, strict=True)
        ]
        X = np.concatenate([self.X, *aligned]).astype(np.float32)
        rows = np.arange(len(self.X)), np.arange(len(self.X), len(X))
        read = predict_features(dict.fromkeys(self.Y, RidgeGCV()), X, self.Y, *rows)
        n = len(X_test)
        return [
            {name: Y[k * n : (k + 1) * n] for name, Y in read.items()}
            for k in range(len(parts))
        ]

    def _as_variable(self, predicted: Matrix) -> Matrix:
        """Return predicted responses with the mean and SD of the subject's own.

        What features do not predict is missing in them, and decoders would take all of
        the new subject's images for average ones.
        """
        standard = TargetScaling.fit(predicted).apply(predicted)
        found = standard * self.X.std(axis=0) + self.X.mean(axis=0)
        return np.asarray(found, np.float32)

    def _encoded(self, several: Sequence[Features]) -> list[Matrix]:
        """Return responses of this subject that its encoding model predicts.

        Features are standardised, and each has the same weight, however many targets.
        """
        scaling = {name: TargetScaling.fit(Y) for name, Y in self.Y.items()}

        def joined(features: Features) -> Matrix:
            parts = [s.apply(features[n]) for n, s in scaling.items()]
            even = [Y / np.float32(Y.shape[1] ** 0.5) for Y in parts]
            return np.concatenate(even, axis=1)

        every = np.concatenate([joined(features) for features in several])
        predicted = RidgeGCV().fit_predict(joined(self.Y), self.X, every)
        ends = np.cumsum([len(next(iter(f.values()))) for f in several])[:-1]
        return np.split(predicted, ends)
