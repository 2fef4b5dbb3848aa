from .about import LIMIT as LIMIT, About as About, read_about as read_about
from .comparing import Comparison as Comparison, compare as compare
from .writing import write_reference as write_reference
