from .about import LIMIT, About, read_about
from .comparing import Comparison, compare
from .writing import write_reference

__all__ = ["LIMIT", "About", "Comparison", "compare", "read_about", "write_reference"]
