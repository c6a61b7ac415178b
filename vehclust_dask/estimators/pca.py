"""Principal components of all rows in one pass, exactly, whatever the number of components."""

from __future__ import annotations

import json
from numbers import Integral, Real
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from vehclust_dask.blocks import reduce_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.doors import by_rows, rows_in
from vehclust_dask.kernels.moments import (
    Moments,
    MomentsPass,
    column_factors,
    merge_moments,
    unit_rows,
)
from vehclust_dask.kernels.spectrum import leading_eigenpairs

SCALES = ("none", "standard", "minmax", "l2")
SOLVERS = ("gram", "qr")


class PCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Principal component analysis from mergeable moments: incremental, exact, one pass over the rows.

    The moments (count, mean, scatter) of blocks are merged pairwise; the components come from one
    eigendecomposition at the end. The whole spectrum is known, so a share of variance and every
    count of components come from the same pass, and so do standardised columns: scaling a column
    scales a row and a column of the scatter.

    Parameters
    ----------
    n_components : int, float or None, default None
        A count; a share of variance in (0, 1): the smallest count that reaches it; None: all.
    max_components : int or None, default None
        At most so many. With it a count above the width means the whole width.
    scale : {'none', 'standard', 'minmax', 'l2'}, default 'none'
        Columns divided by their standard deviation or range, or rows divided by their length,
        before the components are sought. Constant columns are left as they are.
    solver : {'gram', 'qr'}, default 'gram'
        'gram' adds up float32 products in float64; 'qr' keeps a triangular factor in float64: slower
        by an order, for data far from the origin or variances below 1e-6 of the largest.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features_in_), float64
        Unit vectors in scaled columns, signs as in scikit-learn (largest entry positive).
    spectrum_ : ndarray of shape (n_features_in_,), float64
        Variance along every component, descending (divided by n - 1).
    explained_variance_, explained_variance_ratio_ : ndarray of shape (n_components_,), float64
    mean_, factor_ : ndarray of shape (n_features_in_,), float64
        A row is taken as ``(x - mean_) * factor_``.
    n_components_, n_samples_seen_, n_features_in_ : int

    Notes
    -----
    Memory: the scatter (8 * n_features ** 2 bytes) a few times over and one block; time: one product
    of each block with itself. Source: Chan, Golub and LeVeque (1979) for the merge.
    """

    def __init__(
        self,
        n_components: int | float | None = None,
        *,
        max_components: int | None = None,
        scale: str = "none",
        solver: str = "gram",
    ) -> None:
        self.n_components = n_components
        self.max_components = max_components
        self.scale = scale
        self.solver = solver

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the components of all rows.

        Parameters
        ----------
        X : array-like, Dask array or Blocks of shape (n_samples, n_features)
        y : ignored
        """
        self._check_parameters()
        blocks = rows_in(self, X, reset=True)
        self._check_count(blocks.grid.n_rows, blocks.n_features)
        return self._solve(reduce_rows(blocks, self._pass(), name="pca"))

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Add rows to those already seen and find the components of all of them."""
        self._check_parameters()
        first = not hasattr(self, "components_")
        if not first and not hasattr(self, "moments_"):
            raise BadInput(
                "this PCA was loaded without its moments: it transforms, or is fitted anew"
            )
        blocks = rows_in(self, X, reset=first)
        moments = reduce_rows(blocks, self._pass(), name="pca")
        return self._solve(moments if first else merge_moments(self.moments_, moments))

    def fit_moments(self, moments: Moments) -> Self:
        """Find the components from moments gathered before (of unit rows where ``scale='l2'``)."""
        self._check_parameters()
        self.n_features_in_ = len(moments.mean)
        self._check_count(moments.n, self.n_features_in_)
        return self._solve(moments)

    def transform(self, X: Any) -> Any:
        """Project rows onto the components.

        Returns
        -------
        Z : ndarray or Dask array of shape (n_samples, n_components_), float32
        """
        check_is_fitted(self)
        blocks = rows_in(self, X, reset=False)
        return by_rows(X, blocks, self.transform_block, self.n_components_, np.float32)

    def transform_block(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project one block, float32 in and out."""
        rows = unit_rows(X) if self.scale == "l2" else X
        mean = self.mean_.astype(np.float32)
        centered: NDArray[np.float32] = rows - mean
        Z: NDArray[np.float32] = centered @ self._weights()
        # Far from the origin the rounding of the mean is no small part of a spread.
        rounding = self.components_ @ ((mean - self.mean_) * self.factor_)
        Z += rounding.astype(np.float32)
        return Z

    def inverse_transform(self, Z: Any) -> Any:
        """Return the rows that components describe, in the columns' own units (unit rows for 'l2')."""
        check_is_fitted(self)
        Z = np.asarray(Z, dtype=np.float64)
        if Z.ndim != 2 or Z.shape[1] != self.n_components_:
            raise BadInput(
                f"Z has shape {Z.shape}: a matrix of {self.n_components_} columns is needed, "
                "one per component"
            )
        back = Z @ self.components_
        return (back / self.factor_ + self.mean_).astype(np.float32)

    def count_for(self, share: float) -> int:
        """Return the smallest number of components that explains this share of the variance."""
        check_is_fitted(self)
        return _count_for(self.spectrum_, share)

    def save(self, file: str | Path | IO[bytes]) -> None:
        """Write the fitted estimator to a .npz file without moments (arrays and JSON; no pickle)."""
        check_is_fitted(self)
        if isinstance(file, str | Path):
            with open(file, "wb") as out:
                self.save(out)
            return
        arrays = {name: getattr(self, name) for name in _SAVED}
        params = json.dumps(
            self.get_params() | {"n_samples_seen": self.n_samples_seen_},
            default=lambda value: value.item(),
        )
        np.savez(file, params=np.frombuffer(params.encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, file: str | Path | IO[bytes]) -> Self:
        """Read what `save` wrote; it transforms, but cannot be fitted further."""
        with np.load(file, allow_pickle=False) as stored:
            params = json.loads(stored["params"].tobytes())
            seen = params.pop("n_samples_seen")
            pca = cls(**params)
            for name in _SAVED:
                setattr(pca, name, stored[name])
        pca.n_samples_seen_ = seen
        pca._describe()
        return pca

    def _pass(self) -> MomentsPass:
        return MomentsPass(triangular=self.solver == "qr", unit=self.scale == "l2")

    def _check_parameters(self) -> None:
        for name, value, allowed in (
            ("scale", self.scale, SCALES),
            ("solver", self.solver, SOLVERS),
        ):
            if value not in allowed:
                raise BadInput(f"{name}={value!r}: allowed are {', '.join(allowed)}")
        count, most = self.n_components, self.max_components
        whole = isinstance(count, Integral) and not isinstance(count, bool) and count >= 1
        share = isinstance(count, Real) and not isinstance(count, Integral) and 0 < count <= 1
        if not (count is None or whole or share):
            raise BadInput(
                f"n_components={count!r}: give a count of at least 1, a share of variance in (0, 1), "
                "or None for all"
            )
        if most is not None and not (isinstance(most, Integral) and most >= 1):
            raise BadInput(f"max_components={most!r}: give a count of at least 1, or None")

    def _check_count(self, n_samples: int, n_features: int) -> None:
        """Refuse more components than there are columns or rows, before any work."""
        _check_samples(n_samples)
        if self.max_components is not None or not isinstance(self.n_components, Integral):
            return
        limit = min(n_samples, n_features)
        if self.n_components > limit:
            what = f"{n_features} features" if n_features <= n_samples else f"{n_samples} rows"
            raise BadInput(
                f"n_components={self.n_components} but the descriptor has {what}; lower it to "
                f"{limit} or less, or give max_components instead"
            )

    def _solve(self, moments: Moments) -> Self:
        """Find components from moments: eigenvectors of the scaled scatter, or singular vectors of R."""
        _check_samples(moments.n)
        if not np.isfinite(moments.scatter).all():
            raise BadInput(
                "some rows hold NaN, infinity or values whose squares overflow: drop or scale them"
            )
        self.moments_ = moments
        self.n_samples_seen_ = moments.n
        _, factor = column_factors(moments, self.scale)
        self.mean_, self.factor_ = moments.mean, factor
        if moments.triangular:
            _, singular, rows = scipy.linalg.svd(moments.scatter * factor, full_matrices=False)
            self._take_spectrum(singular**2)
        else:
            scaled = moments.scatter * factor
            scaled *= factor[:, None]
            squares, rows = leading_eigenpairs(scaled, self._most(len(factor)))
            self._take_spectrum(squares)
        keep = self._how_many()
        self.components_ = _fix_signs(np.ascontiguousarray(rows[:keep]))
        self._describe()
        return self

    def _take_spectrum(self, squares: NDArray[np.float64]) -> None:
        self.spectrum_ = np.maximum(squares, 0.0) / (self.n_samples_seen_ - 1)

    def _most(self, n_features: int) -> int:
        """Return the most components that may be kept, before the spectrum is known."""
        limit = min(self.n_samples_seen_, n_features)
        if self.max_components is not None:
            limit = min(limit, int(self.max_components))
        if isinstance(self.n_components, Integral):
            limit = min(limit, int(self.n_components))
        return limit

    def _how_many(self) -> int:
        most = self._most(len(self.spectrum_))
        if self.n_components is None or isinstance(self.n_components, Integral):
            return most
        return min(_count_for(self.spectrum_, float(self.n_components)), most)

    def _describe(self) -> None:
        self.n_components_, self.n_features_in_ = self.components_.shape
        kept = self.spectrum_[: self.n_components_]
        total = self.spectrum_.sum()
        self.explained_variance_ = kept
        self.explained_variance_ratio_ = kept / total if total > 0 else np.zeros_like(kept)
        self.singular_values_ = np.sqrt(kept * (self.n_samples_seen_ - 1))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Rows are float32 all the way, whatever they come as.
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def _weights(self) -> NDArray[np.float32]:
        return (self.components_ * self.factor_).astype(np.float32).T


_SAVED = ("components_", "spectrum_", "mean_", "factor_")


def _check_samples(n_samples: int) -> None:
    if n_samples < 2:
        raise BadInput(f"there is {n_samples} sample: components need at least 2")


def _count_for(spectrum: NDArray[np.float64], share: float) -> int:
    """Return the smallest count whose share of the total is above ``share`` (scikit-learn's rule)."""
    total = spectrum.sum()
    if total <= 0:
        return 1
    reached = np.cumsum(spectrum) / total
    return min(int(np.searchsorted(reached, share, side="right")) + 1, len(spectrum))


def _fix_signs(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make the entry of largest absolute value of every row positive."""
    at = np.abs(rows).argmax(axis=1)
    signs = np.sign(rows[np.arange(len(rows)), at])
    signs[signs == 0] = 1.0
    fixed: NDArray[np.float64] = rows * signs[:, None]
    return fixed
