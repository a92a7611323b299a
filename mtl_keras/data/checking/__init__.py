"""Checking a folder of labelled images: what can't be used, what is odd, what there is of what.

`look.py` opens one image and its labels, just as a preparation does; `checker.py` does so for all,
on all cores; `duplicates.py`, `statistics.py` and `advice.py` make the rest of the `Report`;
`terminal.py` and `html.py` show it.
"""

from mtl_keras.data.checking.checker import check
from mtl_keras.data.checking.report import Report

__all__ = ["Report", "check"]
