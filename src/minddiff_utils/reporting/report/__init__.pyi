from .items import (
    FigureItem,
    GalleryItem,
    LinkItem,
    Section,
    TableItem,
)
from .page import banner, render_report, verdict_class

__all__ = [
    "FigureItem",
    "GalleryItem",
    "LinkItem",
    "Section",
    "TableItem",
    "banner",
    "render_report",
    "verdict_class",
]
