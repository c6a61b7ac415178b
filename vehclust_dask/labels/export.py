"""The ``path,cluster`` file that people hand on."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from vehclust_dask.errors import RunMissing, nearest
from vehclust_dask.store.folders import PARTIAL
from vehclust_dask.store.storage import readable

#: How people write a method in a file name.
METHOD_NAMES = {
    "kmeans": "KMeans",
    "quick-kmeans": "QuickKMeans",
    "minibatch-kmeans": "MiniBatchKMeans",
    "gaussian-mixture": "GaussianMixture",
    "ward": "Ward",
    "dbscan": "DBSCAN",
    "hdbscan": "HDBSCAN",
}
#: Columns of the table of labels that are no labels.
PLACES = (
    "row", "path", "second", "sq_dist", "margin", "resp", "second_resp", "core", "probability",
    "glosh", "silhouette",
)  # fmt: skip


def export_csv(labels: Path, study: str, method: str, column: str, k: int, out: Path) -> Path:
    """Write one clustering as CSV, a row group at a time.

    Parameters
    ----------
    labels : Path
        The study's table of labels.
    study : str
    method : str
    column : str
        Of the table, such as ``km_30``.
    k : int
    out : Path
        A folder (the file is then named like ``osnet_KMeans_k30.csv``) or a ``.csv`` file.

    Returns
    -------
    Path
        The file, written whole or not at all.

    Raises
    ------
    RunMissing
        If the table has no such column.
    """
    if not labels.is_file():
        raise RunMissing(f"the run has no labels of study '{study}'")
    table = pq.ParquetFile(readable(labels))
    names = table.schema_arrow.names
    if column not in names:
        allowed = [n for n in names if n not in PLACES]
        raise RunMissing(
            f"study '{study}' has no clustering '{column}'; {nearest(column, allowed)}"
        )
    key = "path" if "path" in names else "row"
    file = out
    if out.suffix.lower() != ".csv":
        file = out / f"{study}_{METHOD_NAMES.get(method, method)}_k{k}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}{PARTIAL}")
    with open(beside, "w", encoding="utf-8", newline="") as out_file:
        out_file.write(f"{key},cluster\n")
        for group in table.iter_batches(columns=[key, column]):
            frame = group.to_pandas()
            frame.to_csv(out_file, index=False, header=False, lineterminator="\n")
    beside.replace(file)
    return file
