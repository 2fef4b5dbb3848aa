from .backbone import Backbone as Backbone
from .clip import Judge as Judge
from .libraries import load_torchvision as load_torchvision
from .loading import load_backbone as load_backbone, load_judge as load_judge
from .precision import find_device as find_device, full_float32 as full_float32
from .random import tiny_backbone as tiny_backbone
