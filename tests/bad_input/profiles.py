"""What a profile's file may have wrong, beside what `test_profile_files` tries."""

import pytest

from minddiff_utils.core import profile_files

from .case import Case
from .world import (
    Damage,
    World,
    a_dangling_link,
    a_folder,
    a_loop,
    cut,
    gone,
    holds,
    words,
)

PATH = "notebooks/profiles/smoke.yaml"


def load(world: World) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile_files, "project_root", lambda: world.root)
        return profile_files.load_profile("smoke")


def _case(found: str, remedy: str, damage: Damage, names: str = "") -> Case:
    return Case(load, found, remedy, PATH, damage, names)


CASES = {
    "gone": _case(
        "does not exist",
        "use one of algonauts, demo, digits69, laion_fmri, nsd",
        gone,
        "'smoke'",
    ),
    "a folder": _case("cannot be read (Is a directory)", "move the folder", a_folder),
    "a loop": _case("cannot be read", "mend the link", a_loop),
    "a link to nothing": _case("cannot be read", "put it there", a_dangling_link),
    "cut short": _case("is", "mend", cut),
    "not UTF-8": _case("not valid YAML", "save it as UTF-8", holds(b"name: \xff")),
    "a null byte": _case("not valid YAML", "mend it there", holds("name: \0")),
    "a number alone": _case("must hold keys and values", "restore", holds("5")),
    "two documents": _case("not valid YAML", "mend", holds("a: 1\n---\nb: 2\n")),
    "a key twice": _case(
        "the key 'seed' twice", "mend", words("seed: 2308", "seed: 2308\nseed: 2309")
    ),
    "a key of a group twice": _case(
        "the key 'sessions' twice",
        "mend",
        words("sessions: 1,", "sessions: 1, sessions: 2,"),
    ),
    "an alias": _case(
        "an alias", "mend", words("subjects: [1]", "subjects: &a [1]\nmore: *a")
    ),
    "code": _case(
        "not valid YAML",
        "mend",
        words("seed: 2308", "seed: !!python/object/apply:os.getpid []"),
    ),
    "no day": _case(
        "must be a valid integer", "mend", words("seed: 2308", "seed: 2001-99-99")
    ),
    "no truth": _case(
        "not valid YAML", "mend", words("seed: 2308", "seed: !!bool maybe")
    ),
    "brackets without end": _case("nested", "mend", holds("a: " + "[" * 500)),
    "the name of another": _case(
        "must be that of the file", "mend", words("name: smoke", "name: demo")
    ),
    "infinite": _case(
        "must be a finite number",
        "mend",
        words("guidance_scale: 7.0", "guidance_scale: .inf"),
    ),
    "a tab": _case("not valid YAML", "mend", words("seed: 2308", "seed:\n\t- 2308")),
}
