from .core.run import start

__version__: str

__all__ = ["__version__", "start"]
