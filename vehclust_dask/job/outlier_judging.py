"""How well outlier scores find what is known to be wrong, and how far they agree with each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from vehclust_dask.job.outliers import Outliers
from vehclust_dask.kernels.outliers import ranks
from vehclust_dask.store.folders import write_text
from vehclust_dask.store.samples import TRUTH

F64 = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Share of the rows that count as the top of a score.
TOP = 0.01
#: Words of a truth column that knows yes and no.
YES, NO = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no"})
#: The value of a truth column such as ``quality`` that says nothing is wrong.
FINE = "ok"


class Question(NamedTuple):
    """Something known of rows that scores can be asked to find.

    Attributes
    ----------
    name : str
        ``column=value``.
    known, true : ndarray of shape (n_rows,), bool
    """

    name: str
    known: Flags
    true: Flags


def questions(samples: pd.DataFrame) -> list[Question]:
    """Return what truth columns ask: yes-or-no columns, and columns in which most is ``ok``.

    Of a column with the value ``ok`` each other value is a question, against all the rest, and so is
    whether a row is anything but ok. Questions that all or none of the rows answer are left out.
    """
    found: list[Question] = []
    for column in map(str, samples.columns):
        if not column.startswith(TRUTH):
            continue
        values = samples[column].astype("string").str.strip().str.lower()
        known = values.notna().to_numpy()
        told = set(values.dropna())
        name = column.removeprefix(TRUTH)
        if told and told <= YES | NO:
            found.append(Question(name, known, values.isin(YES).to_numpy(bool)))
        elif FINE in told:
            wrong = sorted(told - {FINE})
            asked = [(f"{name}={value}", [value]) for value in wrong]
            if len(wrong) > 1:
                asked.append((f"{name}!={FINE}", wrong))
            found.extend(
                Question(words, known, values.isin(those).to_numpy(bool)) for words, those in asked
            )
    return [q for q in found if 0 < q.true[q.known].sum() < q.known.sum()]


def judge_outliers(found: Outliers, samples: pd.DataFrame) -> pd.DataFrame:
    """Return a row per score and question, or per score where nothing is known.

    Returns
    -------
    DataFrame
        study, score, rows (that have one), question, known, base_rate, average_precision (rows
        without a score come last), rule (NaN for none), over_rule (rows it excludes).
    """
    asked = questions(samples.iloc[found.rows])
    rules = dict(found.spec.rules)
    table = []
    for score, values in found.scores.items():
        rule = rules.get(score, math.nan)
        about = {
            "study": found.study,
            "score": score,
            "rows": int(np.isfinite(values).sum()),
            "rule": rule,
            "over_rule": int((values >= rule).sum()),
        }
        if not asked:
            table.append(about)
        table.extend(about | _precision(values, question) for question in asked)
    columns = ["study", "score", "rows", "question", "known", "base_rate", "average_precision"]
    return pd.DataFrame(table).reindex(columns=[*columns, "rule", "over_rule"])


def _precision(values: F64, question: Question) -> dict[str, object]:
    told, true = values[question.known], question.true[question.known]
    finite = told[np.isfinite(told)]
    precision = math.nan
    if len(finite):
        precision = float(average_precision_score(true, np.nan_to_num(told, nan=finite.min() - 1)))
    return {
        "question": question.name,
        "known": len(told),
        "base_rate": float(true.mean()),
        "average_precision": precision,
    }


def compare_outliers(found: Outliers) -> pd.DataFrame:
    """Return a row per pair of scores: how far they order the rows alike.

    Returns
    -------
    DataFrame
        study, score, other, spearman (over rows that have both; NaN where one is the same for all),
        top_overlap (share of the smaller top that is in the other: the 1 % of highest rank; rows of
        the lowest value are in no top).
    """
    tops = {score: _top(values) for score, values in found.scores.items()}
    table = []
    names = list(found.scores)
    for i, score in enumerate(names):
        for other in names[i + 1 :]:
            smaller = min(len(tops[score]), len(tops[other]))
            shared = len(np.intersect1d(tops[score], tops[other]))
            table.append(
                {
                    "study": found.study,
                    "score": score,
                    "other": other,
                    "spearman": _spearman(found.scores[score], found.scores[other]),
                    "top_overlap": shared / smaller if smaller else math.nan,
                }
            )
    return pd.DataFrame(table, columns=["study", "score", "other", "spearman", "top_overlap"])


def write_judgements(folder: Path, found: list[Outliers], samples: pd.DataFrame) -> None:
    """Write what is known of the scores of all studies, and how far they agree; nothing for none.

    Parameters
    ----------
    folder : Path
    found : list of Outliers
    samples : DataFrame
    """
    if not found:
        return
    for name, tables in (
        ("outlier-scores.csv", [judge_outliers(one, samples) for one in found]),
        ("outlier-agreement.csv", [compare_outliers(one) for one in found]),
    ):
        # An empty table beside others would take away the types of their columns.
        whole = pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)
        write_text(folder / name, whole.to_csv(index=False, lineterminator="\n"))


def _top(values: F64) -> NDArray[np.int64]:
    if not np.isfinite(values).any():
        return np.empty(0, np.int64)
    n = math.ceil(TOP * len(values))
    rank = ranks(values)
    return np.flatnonzero((rank > 0) & (rank <= n) & (values > np.nanmin(values)))


def _spearman(left: F64, right: F64) -> float:
    both = np.isfinite(left) & np.isfinite(right)
    a, b = left[both], right[both]
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return math.nan
    return float(spearmanr(a, b).statistic)
