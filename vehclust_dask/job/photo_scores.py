"""The step of photo scores: every photo of a data set decoded once, small, and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import map_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.job.dataset import Dataset
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.photo import PhotoScores, score_photo
from vehclust_dask.records import RowGrid, Span
from vehclust_dask.store.folders import digest_of
from vehclust_dask.store.matrices import Matrix, create_matrix
from vehclust_dask.store.photos import Photos
from vehclust_dask.store.steps import Step

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Photos are measured as large as fits into a square of so many pixels.
SIDE = 96
#: Rows of a block: a task takes about a second.
BLOCK_ROWS = 1024
#: Array of the step.
SCORES = "scores.zarr"


class PhotoRow(NamedTuple):
    """What is measured of one row: the scores of its photo, whether it is broken, its size."""

    glare: float
    dark: float
    low_contrast: float
    blur: float
    broken: float
    width: float
    height: float


#: The row has no photo; and one that cannot be decoded.
ABSENT = PhotoRow(*[np.nan] * 7)
BROKEN = ABSENT._replace(broken=1.0)


def score_photos(dataset: Dataset, work: Work) -> Step | None:
    """Measure the photos of a data set, or find the step that did so; None where it has none.

    Parameters
    ----------
    dataset : Dataset
    work : Work
    """
    photos = dataset.photos
    if photos is None or "path" not in dataset.samples:
        return None
    entries = photos.find(dataset.samples["path"].tolist())
    step = work.step(
        "photo-scores", {"side": SIDE}, photos.fingerprint(), digest_of(entries.tolist())
    )

    def compute(folder: Path) -> dict[str, Any]:
        grid = RowGrid((len(entries),), BLOCK_ROWS)
        matrix = create_matrix(
            folder / SCORES,
            "scores",
            grid,
            len(PhotoRow._fields),
            "float64",
            digest=step.digest,
            attributes=step.provenance() | {"columns": list(PhotoRow._fields)},
        )
        name = f"photos-{dataset.name}"
        broken = sum(map_rows(grid, _score_block, matrix, photos, entries, name=name))
        matrix.check_whole()
        return {
            "photos": int((entries >= 0).sum()),
            "broken": broken,
            "matrix": matrix.to_json(folder),
        }

    return work.ensure(
        step, f"{dataset.name}: {int((entries >= 0).sum()):,} photos looked at", compute
    )


def photo_columns(step: Step) -> dict[str, F64]:
    """Read what was measured: for each field of `PhotoRow` an array of shape (n_rows,), float64."""
    matrix = Matrix.from_json(step.manifest()["matrix"], step.folder)
    whole = np.concatenate([matrix.load(i) for i in range(matrix.grid.n_blocks)])
    return dict(zip(PhotoRow._fields, np.ascontiguousarray(whole.T), strict=True))


def odd_size(width: F64, height: F64) -> F64:
    """Return how far each photo's shape and size are from the usual, in doublings.

    1 is a photo of twice the usual aspect ratio, or of twice the usual area: the root of the sum of
    squares of both, each from the median of its logarithm. NaN where there is no photo.
    """
    aspect, area = np.log2(width / height), np.log2(width * height)
    if np.isnan(aspect).all():
        return aspect
    return np.hypot(aspect - np.nanmedian(aspect), area - np.nanmedian(area))


def _score_block(i: int, span: Span, matrix: Matrix, photos: Photos, entries: I64) -> int:
    """Measure the photos of a block, unless that was done before; return how many are broken."""
    if not matrix.is_written(i):
        own = entries[span.row0 : span.row0 + span.n_rows]
        matrix.write(i, np.array([_score(photos, int(entry)) for entry in own]))
    return int(np.nansum(matrix.load(i)[:, PhotoRow._fields.index("broken")]))


def _score(photos: Photos, entry: int) -> PhotoRow:
    # Asked first: that the photos as a whole changed or are gone is no fault of one photo.
    if entry < 0 or photos.n_photos == 0:
        return ABSENT
    try:
        rgb, width, height = photos.pixels(entry, SIDE)
    except BadInput:
        return BROKEN
    return PhotoRow(*_measured(rgb), broken=0.0, width=width, height=height)


def _measured(rgb: NDArray[np.uint8]) -> PhotoScores:
    """Measure pixels; a strip too narrow for a Laplacian is repeated at its border first."""
    short = [max(0, 3 - n) for n in rgb.shape[:2]]
    if any(short):
        rgb = np.pad(rgb, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
    return score_photo(rgb)
