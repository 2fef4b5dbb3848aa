"""What may be wrong on the command line, beside what `test_cli` and `test_cost` try."""

from .case import Case
from .world import a_dangling_link, a_folder, a_loop, cut, gone, holds, words

RUN = ("run", "--profile", "smoke", "--dry-run")
NSD = ("run", "--profile", "nsd", "--dry-run", "--nsd-root")
SET = (*RUN, "--set")
PLAN = ("plan", "--profile", "nsd", "--rates", "{root}/rates.json")
MARK = "data/smoke/nsd/IN_SILICO.txt"

CASES = {
    # which subjects, notebooks, shards
    "a subject twice": Case(
        (*RUN, "--subjects", "1,1"), "each may be there once", "mend", names="[1, 1]"
    ),
    "no subject between commas": Case(
        (*RUN, "--subjects", "1,,2"), "must be numbers", "as 1,2", names="--subjects"
    ),
    "a subject that is no number": Case(
        (*RUN, "--subjects", "subj01"), "must be numbers", "as 1", names="--subjects"
    ),
    "no notebook between commas": Case(
        (*RUN, "--only", ","), "No notebook has the number", "use 00", names="''"
    ),
    "a blank between notebooks": Case(
        (*RUN, "--only", "03, 04"), "No notebook has", "use 00", names="' 04'"
    ),
    "from beyond the last": Case(
        (*RUN, "--from", "7"), "No notebook has the number", "use 00", names="'7'"
    ),
    "only what is before from": Case(
        (*RUN, "--only", "02", "--from", "05"),
        "no notebook",
        "--only",
        names="--from",
    ),
    "simulating real data": Case(
        ("simulate", "--profile", "nsd", "--nsd-root", "{root}"),
        "no notebook",
        "--only",
        names="nsd",
    ),
    "fewer than one shard": Case(
        (*RUN, "--shards", "-1"), "-1 shards", "choose among these", names="batches"
    ),
    "fewer than one job": Case(
        (*RUN, "--jobs", "-3"), "is -3", "must be 1 or more", names="--jobs"
    ),
    # --set
    "a setting without a name": Case(
        (*SET, "=5"), "names no field", "write it as", names="override ''"
    ),
    "a setting that ends in a dot": Case(
        (*SET, "stage2.=5"), "names no field", "write it as", names="'stage2.'"
    ),
    "a setting of a group and of its field": Case(
        (*SET, "stage2=3", "--set", "stage2.paper.n_iter=5"),
        "another sets a field of it",
        "keep one",
        names="stage2",
    ),
    "a setting that would run code": Case(
        (*SET, "seed=!!python/object/apply:os.system [touch spoilt]"),
        "not valid YAML",
        "mend",
        names="--set",
    ),
    "a setting of no day": Case(
        (*SET, "seed=2001-99-99"), "must be a valid integer", "mend", names="seed"
    ),
    "a setting of no whole number": Case(
        (*SET, "seed=!!int x"), "not valid YAML", "mend", names="--set"
    ),
    "a setting that holds itself": Case(
        (*SET, "subjects=&a [*a]"), "alias", "mend", names="--set"
    ),
    "a setting with brackets without end": Case(
        (*SET, f"seed={'[' * 500}"), "nested", "mend", names="--set"
    ),
    "infinity": Case(
        (*SET, "stage2.paper.step=.inf"),
        "must be a finite",
        "mend",
        names="stage2.paper.step",
    ),
    "another profile's name": Case(
        (*SET, "name=demo"), "must be that of the file", "mend", names="override name"
    ),
    "a field's number for its name": Case(
        (*SET, "stage2={1: 2}"), "must be a name", "mend the override", names="stage2.1"
    ),
    "no share at all": Case(
        (*SET, "decoding.k_grid=[]"), "must be longer", "mend", names="decoding.k_grid"
    ),
    "more than all": Case(
        (*SET, "decoding.k_grid=[101]"), "less than or equal", "mend", names="k_grid"
    ),
    # profiles and places
    "a name that no file can have": Case(
        ("run", "--profile", "x" * 300), "does not exist", "use one of", names="xxx"
    ),
    "a profile by its path": Case(
        ("run", "--profile", "../profiles/smoke"),
        "does not exist",
        "use one of",
        names="../profiles/smoke",
    ),
    "a file for the NSD folder": Case(
        (*NSD, f"{{root}}/{MARK}"),
        "no folder",
        "--nsd-root",
        MARK,
    ),
    "a link to no NSD folder": Case(
        (*NSD, f"{{root}}/{MARK}"), "a link to nothing", "mend", MARK, a_dangling_link
    ),
    "a file to be checked": Case(
        ("check", f"{{root}}/{MARK}"), "is no folder", "give the path", MARK
    ),
    "a loop to be checked": Case(
        ("check", f"{{root}}/{MARK}"), "cannot be read", "mend the link", MARK, a_loop
    ),
    # minddiff plan
    "rates of a folder": Case(
        PLAN, "cannot be read", "move the folder aside", "rates.json", a_folder
    ),
    "rates that are gone": Case(PLAN, "not found", "write one", "rates.json", gone),
    "rates in a loop": Case(
        PLAN, "cannot be read", "mend the link", "rates.json", a_loop
    ),
    "rates cut short": Case(PLAN, "no file of rates", "write one", "rates.json", cut),
    "rates without seconds": Case(
        PLAN, "seconds", "write one", "rates.json", words('"seconds"', '"hours"')
    ),
    "rates not in UTF-8": Case(
        PLAN, "no file of rates", "write one", "rates.json", holds(b'{"a": "\xff"}')
    ),
    "no images to plan": Case(
        ("plan", "--images", "-1"), "is -1", "must be 1 or more", names="--images"
    ),
}
