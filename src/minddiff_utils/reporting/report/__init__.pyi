from .page import (
    FigureItem,
    GalleryItem,
    Item,
    LedgerItem,
    Report,
    Section,
    TableItem,
    banner,
    render_report,
)

__all__ = [
    "FigureItem",
    "GalleryItem",
    "Item",
    "LedgerItem",
    "Report",
    "Section",
    "TableItem",
    "banner",
    "render_report",
]
