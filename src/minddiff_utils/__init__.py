"""MindDiffuser, runnable: from fMRI responses to reconstructed images and claims."""

__all__ = ["__version__"]

__version__ = "0.1.0"
