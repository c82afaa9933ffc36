"""Mixed models as scikit-learn estimators, for pipelines, cross-validation and dask-ml's wrappers.

    from bigmm.sklearn import LMMRegressor
    model = LMMRegressor("y ~ x + (1 | g)").fit(frame, frame["y"])

The only room of bigmm that imports scikit-learn; dask-ml is never imported. See docs/sklearn.md.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("bigmm.sklearn needs scikit-learn: pip install 'bigmm[ml]'") from error

from bigmm.sklearn.generalized import GLMMClassifier, GLMMRegressor
from bigmm.sklearn.linear import LMMRegressor

__all__ = ["GLMMClassifier", "GLMMRegressor", "LMMRegressor"]
