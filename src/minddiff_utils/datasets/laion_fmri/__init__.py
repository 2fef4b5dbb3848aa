"""LAION-fMRI (Hebart lab): volumes at 1.8 mm, human captions, shipped splits."""
