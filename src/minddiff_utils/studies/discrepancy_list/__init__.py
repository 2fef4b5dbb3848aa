"""The 27 differences between the paper's text and its released code, and the switches.

They stand in `differences.csv`, a row for each switch. The numbers are those that the
notebooks' deviations name. Facts are of the public repository at commit c9773ac;
"paper" is its text as far as it is known here.
"""

from pathlib import Path

import pandas as pd

__all__ = ["listed"]


def listed() -> pd.DataFrame:
    """Return the differences, each as often as it has switches, or once.

    Columns number; paper, what it says; code, what that does; switch, the one
    difference, turned, in words; why there is no effect of its own; method, the code's
    side of the switch, and reference, the paper's. Empty where there is none of it.
    """
    path = Path(__file__).with_name("differences.csv")
    return pd.read_csv(path, dtype=str, keep_default_na=False)
