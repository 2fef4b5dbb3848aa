"""Object categories of the in-silico scenes: names of COCO, words, what they can do."""

from dataclasses import dataclass

__all__ = ["CATEGORIES", "COLOURS", "HELD_OUT", "VOCABULARY", "Category"]


@dataclass(frozen=True)
class Category:
    """One category.

    Attributes
    ----------
    supercategory : str
        COCO's.
    names : tuple of (str, str)
        Words for one and for several, the commonest first.
    still, moving : tuple of str
        What captions say of an object at rest, and of one in motion.
    in_the_air : bool
        Whether an object in motion has left the ground for good.
    coloured : bool
        Whether its colour varies, so that a caption may name it.
    """

    supercategory: str
    names: tuple[tuple[str, str], ...]
    still: tuple[str, ...]
    moving: tuple[str, ...]
    in_the_air: bool = False
    coloured: bool = False


_STANDS = ("standing", "waiting", "resting")
_RUNS = ("running", "jumping", "playing")
_PARKED = ("parked", "standing", "stopped")
_DRIVES = ("driving", "moving", "racing")
_LIES = ("lying", "sitting", "placed")
_FALLS = ("falling", "rolling", "tumbling")


def _animal(*names: tuple[str, str]) -> Category:
    return Category("animal", names, _STANDS, _RUNS)


def _vehicle(*names: tuple[str, str]) -> Category:
    return Category("vehicle", names, _PARKED, _DRIVES, coloured=True)


def _thing(supercategory: str, *names: tuple[str, str]) -> Category:
    return Category(supercategory, names, _LIES, _FALLS)


VOCABULARY: dict[str, Category] = {
    "person": Category(
        "person", (("person", "people"), ("man", "men")), _STANDS, _RUNS
    ),
    "car": _vehicle(("car", "cars"), ("automobile", "automobiles")),
    "bus": _vehicle(("bus", "buses"), ("city bus", "city buses")),
    "train": _vehicle(("train", "trains"), ("locomotive", "locomotives")),
    "truck": _vehicle(("truck", "trucks"), ("lorry", "lorries")),
    "boat": Category(
        "vehicle",
        (("boat", "boats"), ("sailboat", "sailboats")),
        ("anchored", "resting", "sitting"),
        ("sailing", "rocking", "moving"),
        coloured=True,
    ),
    "traffic light": _thing("outdoor", ("traffic light", "traffic lights")),
    "stop sign": _thing("outdoor", ("stop sign", "stop signs")),
    "bird": Category(
        "animal",
        (("bird", "birds"), ("parrot", "parrots")),
        ("sitting", "standing", "perched"),
        ("flying", "gliding"),
        in_the_air=True,
    ),
    "cat": _animal(("cat", "cats"), ("kitten", "kittens")),
    "dog": _animal(("dog", "dogs"), ("puppy", "puppies")),
    "horse": _animal(("horse", "horses"), ("pony", "ponies")),
    "sheep": _animal(("sheep", "sheep"), ("lamb", "lambs")),
    "cow": _animal(("cow", "cows"), ("calf", "calves")),
    "elephant": _animal(("elephant", "elephants")),
    "giraffe": _animal(("giraffe", "giraffes")),
    "umbrella": Category(
        "accessory",
        (("umbrella", "umbrellas"), ("parasol", "parasols")),
        ("standing", "placed", "open"),
        ("flying", "falling"),
        coloured=True,
    ),
    "sports ball": Category(
        "sports",
        (("sports ball", "sports balls"), ("soccer ball", "soccer balls")),
        ("lying", "resting", "placed"),
        ("bouncing", "rolling", "flying"),
    ),
    "kite": Category(
        "sports",
        (("kite", "kites"),),
        ("lying", "resting", "placed"),
        ("flying", "gliding"),
        in_the_air=True,
    ),
    "banana": _thing("food", ("banana", "bananas")),
    "apple": _thing("food", ("apple", "apples")),
    "orange": _thing("food", ("orange", "oranges")),
    "broccoli": _thing("food", ("broccoli", "broccolis")),
    "pizza": _thing("food", ("pizza", "pizzas"), ("pizza slice", "pizza slices")),
    "donut": _thing("food", ("donut", "donuts"), ("doughnut", "doughnuts")),
    "chair": Category(
        "furniture",
        (("chair", "chairs"), ("seat", "seats")),
        ("standing", "placed", "left"),
        _FALLS,
        coloured=True,
    ),
    "potted plant": _thing(
        "furniture", ("potted plant", "potted plants"), ("plant", "plants")
    ),
    "teddy bear": _thing(
        "indoor", ("teddy bear", "teddy bears"), ("plush toy", "plush toys")
    ),
}
CATEGORIES = tuple(VOCABULARY)

#: Never shown to a subject outside the second test set: does decoding go beyond the
#: categories that its training images held?
HELD_OUT = ("truck", "cow", "orange", "kite")

#: Words for colours -> hue, degrees; none is the name of a category, as orange is.
COLOURS = {
    "red": 0.0,
    "amber": 28.0,
    "yellow": 50.0,
    "green": 125.0,
    "blue": 212.0,
    "purple": 275.0,
    "pink": 328.0,
}
