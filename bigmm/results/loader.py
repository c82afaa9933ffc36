"""From a saved directory to the kind of result it holds."""

from __future__ import annotations

import os

from bigmm.results import save
from bigmm.results.glmm_model import GlmmResults
from bigmm.results.lmm_model import LmmResults
from bigmm.results.model import MixedModelResults

RESULTS: dict[str, type[MixedModelResults]] = {"lmm": LmmResults, "glmm": GlmmResults}


def load(path: str | os.PathLike[str]) -> MixedModelResults:
    """Read a fit that `save` wrote.

    Parameters
    ----------
    path : path
        The directory.

    Returns
    -------
    LmmResults or GlmmResults
        The fit, whose objective was evaluated again. It no longer has its rows: `predict` needs `newdata`.

    Raises
    ------
    DataError
        If the directory is no saved fit, or is damaged.
    VersionError
        If another version wrote it, or the objective is another one.
    """
    # The manifest names the kind, so a saved file needs no class names and no pickle.
    fitted = save.load_fit(path)
    return RESULTS[fitted.kind](fitted)
