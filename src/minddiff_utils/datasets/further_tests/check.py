"""How NSD-synthetic and NSD-imagery are checked: read as notebook A7 reads them."""

from collections.abc import Callable, Sequence
from functools import partial

from minddiff_utils.datasets.check_files import Scope, Space, read_sample
from minddiff_utils.datasets.findings import Finding, look
from minddiff_utils.datasets.further_tests import FurtherTest, further_tests
from minddiff_utils.datasets.further_tests.layout import N_TRIALS
from minddiff_utils.datasets.inventory import find
from minddiff_utils.datasets.nsd.layout import FACTS

__all__ = ["check_further"]

#: What is read together -> the kinds of files that it is read from.
_PARTS = {
    "betas": ("betas",),
    "trials": ("design", "run"),
    "stimuli": ("table",),
    "pictures": ("common", "own", "pictures A", "pictures B"),
}
_SIZE = 8  # px, of pictures that are only looked at


def check_further(
    scope: Scope, subjects: Sequence[int], *, needed: bool
) -> list[Finding]:
    """Return findings on the test sets of each subject, those of the core being known.

    A test set without betas is passed over unless it is `needed`. Of synthetic stimuli,
    0.8 GB of pixels, headers alone are read, unless the scope is deep.
    """
    return [
        finding
        for subject in subjects
        for test_set in further_tests(scope.tree)
        if needed or not test_set.absent_words(subject)
        for finding in _check(scope, test_set, subject)
    ]


def _check(scope: Scope, test_set: FurtherTest, subject: int) -> list[Finding]:
    absent = set(test_set.lacking(subject))
    pictures: Callable[[], object] = partial(test_set.check_pictures, subject)
    if scope.deep:
        pictures = partial(test_set.pictures, subject, _SIZE)
    read: dict[str, Callable[[], object]] = {
        "betas": partial(_read_betas, scope, test_set, subject),
        "trials": partial(test_set.trials, subject),
        "stimuli": test_set.stimuli,
        "pictures": pictures,
    }
    findings = []
    for part, kinds in _PARTS.items():
        paths = [file.path for file in test_set.listed(subject) if file.kind in kinds]
        if not paths:
            continue
        gone = [path for path in paths if path in absent]
        path = find(scope.tree.root, (gone or paths)[0])
        finding = Finding(subject, f"NSD-{test_set.name} {part}", path)
        if gone:
            more = f" and {len(gone) - 1} other files" if len(gone) > 1 else ""
            words = f"{gone[0]}{more}: get them with `minddiff fetch --further-tests`"
            findings.append(finding.but("missing", words))
        else:
            findings.append(look(finding, read[part])[0])
    return findings


def _read_betas(scope: Scope, test_set: FurtherTest, subject: int) -> None:
    """Read a sample of the betas, at the core's areas where these are sound."""
    tree, areas, grid = scope.tree, None, None
    regions = ("Kastner2015", "prf-visualrois")
    if all(scope.values.get((subject, name)) is not None for name in regions):
        areas = tree.areas(subject) >= 0
        grid = areas.shape
    if scope.published:
        grid = FACTS[subject].grid
        areas = areas if areas is not None and areas.shape == grid else None

    space, path = Space(subject, grid, areas), test_set.betas_file(subject)
    n_trials, read = N_TRIALS[test_set.name], partial(test_set.betas, subject)
    read_sample(scope, space, path, lambda mask, _: read(mask), n_trials)
