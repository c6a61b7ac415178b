"""A hand-made run to report on: small, every kind of column, photos that tell which row they are."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vehclust_dask.report.site.book import Book, Featured, StudyBook
from vehclust_dask.store.photos import Photos, open_photos

#: A file name that would run if it were taken for HTML, and the row that has it.
HOSTILE, HOSTILE_ROW = '"><script>x()</script>.jpg', 17
#: The row whose photo is no picture.
BROKEN_ROW = 40
N, K = 600, 5


def twin_path(row: int, per_vehicle: int = 10) -> str:
    return f"veriwild/1/{row // per_vehicle + 1:05d}/{row + 1:06d}.jpg"


def photo_bits(row: int) -> Image.Image:
    """Draw a number as 4 x 4 squares, black or white, so that no two photos are alike."""
    bits = np.array([255 * (row >> bit & 1) for bit in range(16)], np.uint8).reshape(4, 4)
    return Image.fromarray(np.kron(bits, np.ones((24, 24), np.uint8))).convert("RGB")


def read_bits(picture: Image.Image) -> int:
    """Return the number that a picture of 96 x 96 pixels shows."""
    gray = np.asarray(picture.convert("L"), float).reshape(4, 24, 4, 24).mean(axis=(1, 3))
    return int(sum(1 << bit for bit, value in enumerate(gray.ravel()) if value > 127))


def make_photos(folder: Path, paths: list[str], broken: int | None = BROKEN_ROW) -> Photos:
    where = folder / "photos.zip"
    with zipfile.ZipFile(where, "w") as archive:
        for row, path in enumerate(paths):
            kept = io.BytesIO()
            photo_bits(row).save(kept, "JPEG")
            archive.writestr(path, b"no picture" if row == broken else kept.getvalue())
    return open_photos(where, folder / "photos.parquet")


def rough_photos(folder: Path, paths: list[str]) -> Photos:
    """Pack photos with as much in them as real ones: thumbnails of 3 to 4 kB."""
    rng = np.random.default_rng(5)
    pool = []
    for _ in range(40):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        kept = io.BytesIO()
        coarse.resize((96, 96), Image.Resampling.BICUBIC).save(kept, "JPEG", quality=90)
        pool.append(kept.getvalue())
    where = folder / "rough.zip"
    with zipfile.ZipFile(where, "w") as archive:
        for row, path in enumerate(paths):
            archive.writestr(path, pool[row % len(pool)])
    return open_photos(where, folder / "rough.parquet")


def make_book(
    folder: Path, n: int = N, k: int = K, *, photos: bool = True, dropped: int = 3, noise: int = 7
) -> Book:
    """Return the book of a run with one study.

    Parameters
    ----------
    folder : Path
        Where tables and photos are kept.
    n, k : int
        Rows of the data set, clusters of the featured clustering.
    photos : bool
    dropped, noise : int
        Rows of the data set that the study lacks, rows of no cluster.
    """
    rng = np.random.default_rng(7)
    paths = [twin_path(row) for row in range(n)]
    paths[HOSTILE_ROW] = HOSTILE
    rows = np.setdiff1d(np.arange(n), 100 + np.arange(dropped))
    m = len(rows)
    labels = rng.integers(0, k, m)
    centers = rng.normal(0, 6, (k, 4))
    Z = centers[labels] + rng.normal(0, 1.2, (m, 4))
    away = np.linalg.norm(Z[:, None] - centers[None], axis=2) if n < 10_000 else None
    second = (labels + 1) % k
    if away is not None:
        apart = away + 1e9 * np.eye(k)[labels]
        second = apart.argmin(axis=1)
        margin = away[np.arange(m), second] - away[np.arange(m), labels]
    else:
        margin = rng.random(m)
    distance = np.linalg.norm(Z - centers[labels], axis=1)
    labels[rng.choice(m, noise, replace=False)] = -1
    coarse, fine = np.maximum(labels, 0) // 2, np.maximum(labels, 0)
    table = folder / "labels.parquet"
    pq.write_table(
        pa.table(
            {
                "row": rows,
                f"km_{k}": labels.astype(np.int32),
                f"km_{(k + 1) // 2}": coarse.astype(np.int32),
                f"ward_{k}": fine.astype(np.int32),
            }
        ),
        table,
    )
    columns = {f"km_{k}": ("km", k), f"km_{(k + 1) // 2}": ("km", (k + 1) // 2)}
    columns[f"ward_{k}"] = ("ward", k)
    scores = pd.DataFrame(
        {
            "study": "one",
            "clustering": [name for name, _ in columns.values()],
            "method": ["kmeans", "kmeans", "ward"],
            "engine": "vehclust",
            "k": [number for _, number in columns.values()],
            "inertia": [10.0, 20.0, 11.0],
            "davies_bouldin": [0.9, 1.4, 1.0],
        }
    )
    samples = pd.DataFrame(
        {
            "row": np.arange(n),
            "path": paths,
            "group": [f"{row // 10}" for row in range(n)],
            "truth_color": rng.choice(["red", "white", "black", ""], n),
            "truth_type": rng.choice(["bus", "sedan", "</script><b>van"], n),
        }
    )
    outliers = pd.DataFrame(
        {
            "row": rows,
            "path": [paths[row] for row in rows],
            "lof": np.where(rng.random(m) < 0.1, np.nan, rng.lognormal(0, 1, m)),
            "lof_rank": np.arange(m),
            "duplicate_group": np.where(np.arange(m) < 4, rows // 2 * 2, -1),
            "duplicate_distance": rng.random(m),
            "excluded": False,
            "reason": None,
        }
    )
    sizes = pd.DataFrame(
        {
            "k": k,
            "cluster": np.arange(k),
            "size": np.bincount(labels[labels >= 0], minlength=k),
            "mean_distance": 1.0,
            "nearest_cluster": (np.arange(k) + 1) % k,
            "nearest_distance": 2.0,
        }
    )
    featured = Featured(
        name="km",
        column=f"km_{k}",
        method="kmeans",
        k=k,
        labels=labels.astype(np.int64),
        second=second.astype(np.int64),
        distance=distance,
        margin=margin,
        centers=centers,
    )
    study = StudyBook(
        name="one",
        descriptors=("osnet",),
        n_features=4,
        rows=rows.astype(np.int64),
        xy=Z[:, :2].astype(np.float32),
        shares=(0.4, 0.2),
        curve=np.array([0.4, 0.6, 0.8, 1.0]),
        featured=featured,
        table=table,
        columns=columns,
        scores=scores,
        clusters={"km": sizes, "ward": sizes},
        outliers=outliers,
        rules={},
    )
    return Book(
        run="one-0123456789abcdef",
        job="one",
        folder=folder,
        manifest=MANIFEST | {"dataset": MANIFEST["dataset"] | {"rows": n, "dropped": dropped}},
        samples=samples,
        photos=make_photos(folder, paths) if photos else None,
        studies=(study,),
        scores=scores,
        synthetic=True,
    )


MANIFEST = {
    "seed": 0,
    "job_digest": "0123456789abcdef",
    "dataset": {"digest": "fedcba9876543210", "sets": {"osnet": 4}, "name": "one"},
    "versions": {"vehclust": "0.1.0", "numpy": "2", "dask": "2025"},
    "began": "2026-01-01T00:00:00+00:00",
    "ended": "2026-01-01T00:01:00+00:00",
    "peak_bytes": 1_000_000,
    "place": {"workers": 2, "kind": "local"},
}
