"""What is assumed of the in-silico brain because nobody measured it: tuned here alone.

How well a feature is decoded follows from these numbers. So accuracies are planted and
say nothing about NSD; what may be read from them is which method decodes better.

References
----------
Kay et al. 2025, PLoS Computational Biology (GSN: covariance of noise resembles that of
signal); Allen et al. 2022, Nature Neuroscience 25:116 (ncsnr, runs, repeats).
"""

__all__ = [
    "ALIGNED_RANK",
    "ALIGNED_SHARE",
    "OWN_SHARE",
    "OWN_SPEED",
    "REPEAT_SHARES",
    "RUN_SHARE",
    "SERIAL",
    "SMOOTH_MM",
    "SMOOTH_RANK",
    "SMOOTH_SHARE",
    "VOLUME_FACTOR",
]

#: NSD's volume betas are noisier than its surface betas; by how much, we assume.
VOLUME_FACTOR = 0.8

#: Share of the signal's variance that is the voxel's own, out of a linear decoder's
#: reach, and how fast it changes, radians per SD of what the voxel sees.
OWN_SHARE, OWN_SPEED = 0.4, 3.0

#: Shares of a trial's noise variance: smooth on the cortex, and aligned with the
#: signal; the rest, .4, is independent between voxels.
SMOOTH_SHARE, ALIGNED_SHARE = 0.3, 0.3
#: SD of the Gaussian by which neighbours share noise, mm of the folded fsaverage, and
#: how many fields stand for all smooth ones.
SMOOTH_MM, SMOOTH_RANK = 3.0, 30
#: Mixtures of the true signal over images that stand for its covariance.
ALIGNED_RANK = 60
#: Correlation of the noise in successive trials: single-trial responses overlap.
SERIAL = 0.2
#: Share of the noise variance that is an offset of the run, smooth on the cortex.
RUN_SHARE = 0.03

#: Shares of a subject's own images with one, two and three trials in the sessions that
#: are written; NSD's first sessions have even more images with one.
REPEAT_SHARES = (0.40, 0.35, 0.25)
