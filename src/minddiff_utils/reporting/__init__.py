"""Figures, tables and the report page: drawing and printing."""
