"""What a study's ``outliers`` key asks for: scores, their parameters, and rules that exclude."""

from __future__ import annotations

from dataclasses import dataclass

from vehclust_dask.job.reading import Place, refuse_repeats

#: Scores from the rows, from the featured clustering, and from the photos.
FROM_ROWS = ("lof", "knn_distance", "isolation")
FROM_CENTERS = ("center_distance",)
FROM_PHOTOS = ("glare", "dark", "low_contrast", "blur", "odd_size", "broken")
SCORES = FROM_ROWS + FROM_CENTERS + FROM_PHOTOS


@dataclass(frozen=True)
class OutlierSpec:
    """Outlier scores of a study.

    Parameters
    ----------
    scores : tuple of str or None
        In the order of the table; None for all that the study and its photos can give.
    n_neighbors : int
        Of the local outlier factor, and whose distance is ``knn_distance``.
    n_estimators, sample : int
        Trees of the isolation forest, and rows drawn for it.
    duplicates : float
        Rows are near-duplicates up to this share of the median distance to the nearest other row.
    rules : tuple of (str, float)
        Rows whose score reaches the threshold are excluded.
    """

    scores: tuple[str, ...] | None = None
    n_neighbors: int = 20
    n_estimators: int = 100
    sample: int = 100_000
    duplicates: float = 0.4
    rules: tuple[tuple[str, float], ...] = ()

    def named(self) -> tuple[str, ...]:
        """Return the scores that the job names, by themselves or in a rule."""
        return (*(self.scores or ()), *(score for score, _ in self.rules))


def read_outliers(place: Place, *, centers: bool, more: tuple[str, ...] = ()) -> OutlierSpec | None:
    """Return what stands at ``outliers``; None for nothing and for false.

    Parameters
    ----------
    place : Place
    centers : bool
        The study has a clustering, so that rows have a center of their own.
    more : tuple of str
        Scores that other parts of the study give.

    Raises
    ------
    UsageError
        If anything in it is unknown, of the wrong kind or contradicts the rest.
    """
    if not place.given or place.value is False:
        return None
    if place.value is True:
        return OutlierSpec()
    place = place.mapping(("scores", "n_neighbors", "isolation_forest", "duplicates", "rules"))
    forest = place["isolation_forest"].mapping(("n_estimators", "sample"))
    allowed = tuple(s for s in SCORES if centers or s not in FROM_CENTERS) + more
    scores = tuple(item.choice(allowed) for item in place["scores"].items()) or None
    refuse_repeats(place["scores"], scores or ())
    return OutlierSpec(
        scores=scores,
        n_neighbors=place["n_neighbors"].whole(20, least=1),
        n_estimators=forest["n_estimators"].whole(100, least=1),
        sample=forest["sample"].whole(100_000, least=2),
        duplicates=place["duplicates"].number(0.4),
        rules=_rules(place["rules"], scores or allowed),
    )


def _rules(place: Place, scores: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Read thresholds by score."""
    rules = place.mapping(scores)
    return tuple((score, rules[score].number()) for score in rules.value)
