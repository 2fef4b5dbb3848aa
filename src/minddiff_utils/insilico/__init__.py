"""An in-silico NSD: scenes, anatomy, a brain model, and NSD files written from them."""

__all__: list[str] = []
