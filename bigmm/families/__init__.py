"""Response distributions and links. Kernels import the device functions of `links`, `scores`, `density`, `special`
(scalars, by number); everybody else the whole columns of `rows` (by `Family`). Knows no formula and no random effects.
"""

from bigmm.families.family import FAMILIES, LINKS, Family, family
from bigmm.families.response import check_response, doubt_response, start_eta, start_mean
from bigmm.families.rows import simulate

__all__ = [
    "FAMILIES",
    "LINKS",
    "Family",
    "check_response",
    "doubt_response",
    "family",
    "simulate",
    "start_eta",
    "start_mean",
]
