"""From a saved directory to the kind of result it holds."""

from __future__ import annotations

import os

from bigmm.results import save
from bigmm.results.glmm_model import GlmmResults
from bigmm.results.lmm_model import LmmResults
from bigmm.results.model import MixedModelResults

RESULTS: dict[str, type[MixedModelResults]] = {"lmm": LmmResults, "glmm": GlmmResults}


def load(path: str | os.PathLike) -> MixedModelResults:
    """Read a fit that `save` wrote; refuses damage (DataError) and another version or objective (VersionError)."""
    fitted = save.load_fit(path)
    return RESULTS[fitted.kind](fitted)
