"""The files that tables are measured on: descriptors as pickles, reduced rows and starts as npy.

They are made from the demo's sets (synthetic), or from a folder of real features, whose rows are
repeated with a little noise where more are asked for. Names carry what they are made from, so that
a kept folder serves several tables and never the wrong one.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vehclust_dask.records import RowGrid

#: Rows that are made or copied at a time.
STEP = 8192
#: Relative change of a value where a row is a repeated one; zeros stay zeros.
NOISE = 0.01


@dataclass(frozen=True)
class SourceBlocks:
    """Rows of a descriptor file read in place, block by block."""

    source: Any
    grid: RowGrid

    @classmethod
    def of(cls, file: str) -> SourceBlocks:
        """Open a file."""
        from vehclust_dask.store.sources import open_source

        source = open_source(file)
        return cls(source, RowGrid.for_width((source.n_rows,), source.n_features))

    @property
    def n_features(self) -> int:
        """Return the number of columns."""
        return int(self.source.n_features)

    def read(self, i: int) -> np.ndarray:
        """Read block ``i``."""
        span = self.grid.span(i)
        return self.source.read(span.start, span.stop)


@dataclass(frozen=True)
class FileBlocks:
    """Rows of an npy file read block by block; kept for the next pass while there is room.

    Parameters
    ----------
    file : str
    grid : RowGrid
    shape : tuple of int
    dtype : str
    """

    file: str
    grid: RowGrid
    shape: tuple[int, int]
    dtype: str

    @classmethod
    def of(cls, file: str, grid: RowGrid | None = None) -> FileBlocks:
        """Open a file; another matrix's grid may be given for rows that belong to it."""
        X = np.load(file, mmap_mode="r")
        cut = grid or RowGrid.for_width((X.shape[0],), X.shape[1])
        return cls(file, cut, X.shape, X.dtype.str)

    @property
    def n_features(self) -> int:
        """Return the number of columns."""
        return int(self.shape[1])

    def read(self, i: int) -> np.ndarray:
        """Read block ``i``."""
        from vehclust_dask.cache import CACHE

        return CACHE.of(self.file, i, lambda: self.load(i), lambda X: X.nbytes)

    def load(self, i: int) -> np.ndarray:
        """Read block ``i`` and keep nothing."""
        span = self.grid.span(i)
        width, size = self.shape[1], np.dtype(self.dtype).itemsize
        with open(self.file, "rb") as stream:
            np.lib.format.read_magic(stream)
            np.lib.format.read_array_header_1_0(stream)
            stream.seek(span.row0 * width * size, 1)
            rows = np.fromfile(stream, self.dtype, span.n_rows * width).reshape(span.n_rows, width)
        # As the store's blocks are: kernels are compiled for rows that are not written into.
        rows.flags.writeable = False
        return rows


@dataclass(frozen=True)
class Features:
    """A pickle of descriptors: the file, its size, and what to call it in a title."""

    file: Path
    rows: int
    width: int
    words: str

    @property
    def title(self) -> str:
        """Return rows, columns and origin for people."""
        return f"{self.rows:,} x {self.width} ({self.words})"


@contextlib.contextmanager
def opened(keep: Path | None, data: Path | None) -> Iterator[Files]:
    """Return a place for files that is emptied at the end unless there is a folder to keep them in."""
    with contextlib.ExitStack() as closing:
        folder = keep.absolute() if keep else None
        if folder is None:
            folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="vehclust-")))
        folder.mkdir(parents=True, exist_ok=True)
        yield Files(folder, data)


@dataclass(frozen=True)
class Files:
    """Makes files, or finds those made before.

    Parameters
    ----------
    folder : Path
    data : Path or None
        Folder of real features, or one pickle of them; None: the demo's sets.
    """

    folder: Path
    data: Path | None

    def scratch(self, name: str) -> Path:
        """Return a folder for what a table writes."""
        path = self.folder / "scratch" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def real(self) -> list[Path]:
        """Return the pickles of real features, the largest first."""
        if self.data is None:
            return []
        found = [self.data] if self.data.is_file() else self.data.glob("*.pickle")
        return sorted(found, key=lambda file: -file.stat().st_size)

    def sizes(self, rows: list[int]) -> list[int]:
        """Return numbers of rows, smallest first; none above those of real features where there are some."""
        real = self.real()
        if not real:
            return sorted(set(rows))
        most = SourceBlocks.of(str(real[0])).grid.n_rows
        return sorted({min(n, most) for n in rows})

    def features(self, demo_set: str, rows: int) -> Features:
        """Return ``rows`` real features where there are some (the largest file), else a demo set."""
        real = self.real()
        if not real:
            return self._demo(demo_set, rows)
        stamp = real[0].stat()
        return self._repeated(real[0], rows, "real", f"{stamp.st_size} {stamp.st_mtime_ns}")

    def tiled_demo(self, demo_set: str, rows: int, at_most: int) -> Features:
        """Return a demo set of any length: rows beyond ``at_most`` are repeated with noise."""
        made = self._demo(demo_set, min(rows, at_most))
        if rows <= at_most:
            return made
        return self._repeated(made.file, rows, "synthetic", made.file.parent.name)

    def _demo(self, demo_set: str, rows: int) -> Features:
        from vehclust_dask.demo import write_demo

        folder = demo_folder(self.folder, demo_set, rows)
        write_demo(folder, rows=rows, photos=False, sets=[demo_set])
        file = folder / f"{demo_set}.pickle"
        width = SourceBlocks.of(str(file)).n_features
        return Features(file, rows, width, f"the demo's {demo_set}, synthetic")

    def _repeated(self, original: Path, rows: int, kind: str, made_from: str) -> Features:
        source = SourceBlocks.of(str(original)).source
        words = f"{kind}, {original.stem}"
        if rows > source.n_rows:
            words += f", {source.n_rows:,} rows repeated with {NOISE:.0%} noise"
        file = self.folder / f"{original.stem}-{rows}-{_short(made_from)}" / original.name
        make_once(file, lambda out: _repeat(source, rows, out))
        return Features(file, rows, source.n_features, words)

    def variances(self, features: Features) -> Path:
        """Return the file of the exact variances along all components, descending."""
        file = features.file.with_name("variances.npy")
        make_once(
            file, lambda out: _save(out, exact_variances(SourceBlocks.of(str(features.file))))
        )
        return file

    def reduced(self, features: Features, n_components: int) -> Path:
        """Return the npy file of standardised, reduced rows, as the jobs of the case make them."""
        file = features.file.with_name(f"reduced-{n_components}.npy")
        make_once(file, lambda out: _reduce(SourceBlocks.of(str(features.file)), n_components, out))
        return file

    def start(self, reduced: Path, k: int) -> Path:
        """Return the npy file of ``k`` rows to start from."""
        file = reduced.with_name(f"{reduced.stem}-start-{k}.npy")

        def make(out: Path) -> None:
            Z = np.load(reduced, mmap_mode="r")
            chosen = np.random.default_rng(0).choice(len(Z), k, replace=False)
            _save(out, np.asarray(Z[np.sort(chosen)]))

        make_once(file, make)
        return file


def demo_folder(parent: Path, name: str, rows: int) -> Path:
    """Return where a demo is kept: another model of the demo must not find files of the last one."""
    import vehclust_dask.demo

    sources = sorted(Path(vehclust_dask.demo.__file__).parent.glob("*.py"))
    made_by = _short("".join(f.read_text(encoding="utf-8") for f in sources))
    return parent / f"{name}-{rows}-{made_by}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def make_once(file: Path, make: Callable[[Path], None]) -> None:
    """Make a file unless it is there; it appears whole."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}")
    make(partial)
    partial.rename(file)


def _save(file: Path, X: np.ndarray) -> None:
    with open(file, "wb") as out:
        np.save(out, X)


def _repeat(source: Any, rows: int, out: Path) -> None:
    """Write rows of a source again and again; the first time as they are, then with noise."""
    from vehclust_dask.demo.pickled import PickledMatrix

    with open(out, "wb") as file, PickledMatrix(file, rows, source.n_features) as matrix:
        written = 0
        while written < rows:
            first = written % source.n_rows
            stop = min(first + STEP, source.n_rows, first + rows - written)
            X = source.read(first, stop)
            if written >= source.n_rows:
                rng = np.random.default_rng([0, written])
                X = X * (1 + NOISE * rng.standard_normal(X.shape, dtype=np.float32))
            matrix.write(X)
            written += len(X)


def exact_variances(blocks: SourceBlocks) -> np.ndarray:
    """Return the eigenvalues of the covariance, all in float64, descending."""
    n, d = blocks.grid.n_rows, blocks.n_features
    each = range(blocks.grid.n_blocks)
    mean = sum(blocks.read(i).sum(axis=0, dtype=np.float64) for i in each) / n
    scatter = np.zeros((d, d))
    for i in each:
        centered = blocks.read(i) - mean
        scatter += centered.T @ centered
    return np.linalg.eigvalsh(scatter / (n - 1))[::-1]


def _reduce(blocks: SourceBlocks, n_components: int, out: Path) -> None:
    from vehclust_dask.estimators import PCA

    pca = PCA(n_components, scale="standard").fit(blocks)
    shape = (blocks.grid.n_rows, n_components)
    Z = np.lib.format.open_memmap(out, "w+", np.float32, shape)
    for i, span in enumerate(blocks.grid.spans()):
        Z[span.row0 : span.row0 + span.n_rows] = pca.transform_block(blocks.read(i))
    Z.flush()
