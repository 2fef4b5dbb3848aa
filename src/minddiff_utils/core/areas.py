"""The visual areas of the paper, in its order."""

__all__ = ["AREAS", "FEW_VOXELS", "HVC", "LVC"]

#: MindDiffuser's 11 visual areas, from early to late (PAPER claim C9).
AREAS = ("V1", "V2", "V3", "V3ab", "hV4", "VO", "PHC", "LO", "MT", "MST", "IPS")
#: Low- and high-level visual cortex.
LVC = ("V1", "V2", "V3", "V3ab", "hV4")
HVC = ("VO", "PHC", "LO", "MT", "MST", "IPS")
#: Areas with fewer voxels decide nothing: their mean is that of single voxels.
FEW_VOXELS = 20
