"""Tables T1 and T3: every method, and stages 1 and 2 in every subject.

Place in the flow: layer 9, part of `tables`.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from minddiff_utils.reporting.tables.rows import summary_rows

__all__ = [
    "comparison_table",
    "subjects_table",
]


def comparison_table(
    comparison: pd.DataFrame,
    *,
    subjects: Sequence[int],
    methods: Sequence[str],
    settings: Mapping[str, str],
    not_run: Mapping[str, str],
) -> pd.DataFrame:
    """Return table T1: every method in the first subject and over all of them.

    Parameters
    ----------
    comparison : DataFrame
        From `summaries.summarise`: subject (and "all"), method, metric, value, ci_low,
        ci_high, n, floor, ceiling.
    subjects : sequence of int
        The profile's; the first one is shown.
    methods : sequence of str
        In the order shown.
    settings : mapping of str to str
        Metric -> its definition; these metrics are shown.
    not_run : mapping of str to str
        Method -> why there are no scores; each gets its rows.

    Returns
    -------
    DataFrame
        Columns subject, method, metric, value, ci_low, ci_high, n, floor, ceiling,
        status, settings. `status` is empty where the row covers everything, names the
        images or subjects it covers where others cover more ("2 of 100 images"), or
        says "missing" or "not run" beside NaN.

    Raises
    ------
    ConfigError
        No subjects.
    DataError
        A column or a metric is missing, or a method in `not_run` has scores.
    """
    shown = [str(s) for s in subjects[:1]] + ["all"]
    return summary_rows(comparison, shown, subjects, methods, settings, not_run)


def subjects_table(
    comparison: pd.DataFrame,
    *,
    subjects: Sequence[int],
    methods: Sequence[str],
    settings: Mapping[str, str],
) -> pd.DataFrame:
    """Return table T3: some methods in every subject of the profile, and over all.

    Parameters, columns and errors are those of `comparison_table`.
    """
    shown = [*map(str, subjects), "all"]
    return summary_rows(comparison, shown, subjects, methods, settings, {})
