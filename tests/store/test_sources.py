"""Every format gives the rows that were written, by ranges and in any order."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vehclust_dask.errors import BadInput
from vehclust_dask.store.sources import Source, open_source

quick = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def numbers(n_rows: int, n_features: int, dtype: str = "<f4", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 9, (n_rows, n_features)).astype(dtype)


def write_pickle(file: Path, X: np.ndarray) -> Path:
    file = file.with_suffix(".pickle")
    file.write_bytes(pickle.dumps(X, 4))
    return file


def write_npy(file: Path, X: np.ndarray) -> Path:
    np.save(file.with_suffix(".npy"), X)
    return file.with_suffix(".npy")


def write_npz(file: Path, X: np.ndarray) -> Path:
    np.savez(file.with_suffix(".npz"), X=X)
    return file.with_suffix(".npz")


def write_deflated(file: Path, X: np.ndarray) -> Path:
    file = file.with_name(file.stem + "-deflated.npz")
    np.savez_compressed(file, X=X)
    return file


def write_zarr(file: Path, X: np.ndarray, zarr_format: Any = 3) -> Path:
    file = file.with_name(f"{file.stem}-{zarr_format}.zarr")
    array = zarr.create_array(
        file, shape=X.shape, chunks=(7, 3), dtype=X.dtype, zarr_format=zarr_format, overwrite=True
    )
    array[:] = X
    return file


def write_zarr2(file: Path, X: np.ndarray) -> Path:
    return write_zarr(file, X, 2)


def write_columns(file: Path, X: np.ndarray) -> Path:
    X = X.astype(X.dtype.newbyteorder("="))
    table = pa.table({f"f{j}": np.ascontiguousarray(X[:, j]) for j in range(X.shape[1])})
    pq.write_table(table, file.with_suffix(".parquet"), row_group_size=11)
    return file.with_suffix(".parquet")


def write_lists(file: Path, X: np.ndarray) -> Path:
    file = file.with_name(file.stem + "-lists.parquet")
    X = X.astype(X.dtype.newbyteorder("="))
    pq.write_table(pa.table({"vector": [row.tolist() for row in X.astype("f8")]}), file)
    return file


def write_fixed_lists(file: Path, X: np.ndarray) -> Path:
    file = file.with_name(file.stem + "-fixed.parquet")
    flat = pa.array(X.astype(X.dtype.newbyteorder("=")).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, X.shape[1])
    pq.write_table(pa.table({"vector": column}), file, row_group_size=13)
    return file


def write_hdf5(file: Path, X: np.ndarray) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(file.with_suffix(".h5"), "w") as container:
        container.create_dataset("deep/X", data=X, chunks=True, compression="gzip")
    return file.with_suffix(".h5")


def write_safetensors(file: Path, X: np.ndarray) -> Path:
    save = pytest.importorskip("safetensors.numpy").save_file
    save(
        {"X": np.ascontiguousarray(X, X.dtype.newbyteorder("<"))}, file.with_suffix(".safetensors")
    )
    return file.with_suffix(".safetensors")


WRITERS = [
    write_pickle, write_npy, write_npz, write_deflated, write_zarr, write_zarr2, write_columns,
    write_lists, write_fixed_lists, write_hdf5, write_safetensors,
]  # fmt: skip
every_format = pytest.mark.parametrize("writer", WRITERS, ids=lambda w: w.__name__[6:])


@every_format
@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8", ">f4", "<i4", "|u1"])
def test_source__reads_what_was_written(tmp_path, writer, dtype):
    if writer is write_columns and dtype == "<f2":
        pytest.importorskip("pyarrow", minversion="16")
    X = numbers(50, 6, "<f8").astype(dtype)
    source = open_source(writer(tmp_path / "x", X))
    assert isinstance(source, Source)
    assert (source.n_rows, source.n_features) == X.shape
    assert Path(source.file).is_absolute()
    assert source.paths is None
    if writer is not write_lists:  # those were written as float64
        assert np.dtype(source.dtype) == X.dtype.newbyteorder(source.dtype[0])
        assert source.payload_bytes == X.nbytes
    for start, stop in ((0, 50), (3, 17), (17, 40), (5, 6), (49, 50), (50, 50), (0, 0)):
        got = source.read(start, stop)
        assert got.dtype == np.float32
        assert got.dtype.isnative
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, X[start:stop].astype("f4"))


@every_format
@quick
@given(
    rows=st.lists(st.integers(0, 59), max_size=30),
    spans=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=5),
)
def test_source__any_rows_in_any_order_also_elsewhere(tmp_path, writer, rows, spans):
    X = numbers(60, 3)
    file = tmp_path / "x"
    made = next(tmp_path.iterdir(), None)
    source = open_source(made or writer(file, X))
    copy = pickle.loads(pickle.dumps(source))
    for a, b in spans:
        start, stop = min(a, b), max(a, b)
        np.testing.assert_array_equal(source.read(start, stop), X[start:stop])
        np.testing.assert_array_equal(copy.read(start, stop), X[start:stop])
        np.testing.assert_array_equal(copy.take(np.array(rows, np.int64)), X[rows])


@every_format
def test_source__is_small_after_reading(tmp_path, writer):
    source = open_source(writer(tmp_path / "x", numbers(400, 5)))
    source.read(0, 100)
    assert len(pickle.dumps(source)) < 2000


@every_format
def test_source__refuses_rows_that_are_not_there(tmp_path, writer):
    source = open_source(writer(tmp_path / "x", numbers(10, 3)))
    for start, stop in ((-1, 3), (0, 11), (5, 4)):
        with pytest.raises(IndexError):
            source.read(start, stop)
    with pytest.raises(IndexError):
        source.take(np.array([10]))


@every_format
def test_source__fingerprint_changes_with_the_file(tmp_path, writer):
    source = open_source(writer(tmp_path / "x", numbers(10, 3)))
    before = source.fingerprint()
    assert before == open_source(source.file).fingerprint()
    assert {"size", "mtime_ns"} <= set(before)
    json.dumps(before)
    writer(tmp_path / "x", numbers(11, 3))
    assert source.fingerprint() != before


@pytest.mark.parametrize("writer", [write_pickle, write_npy, write_npz, write_columns, write_hdf5])
def test_source__too_large_values_become_infinite_without_a_warning(tmp_path, writer, recwarn):
    X = np.array([[1e300, -1e300, 1.0], [np.nan, np.inf, 2.0]])
    got = open_source(writer(tmp_path / "x", X)).read(0, 2)
    np.testing.assert_array_equal(got, [[np.inf, -np.inf, 1], [np.nan, np.inf, 2]])
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


@pytest.mark.parametrize("writer", [write_npy, write_npz, write_deflated])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "|b1"])
def test_source__fortran_order(tmp_path, writer, dtype):
    X = np.asfortranarray((numbers(90, 70, "<f8") > 0).astype(dtype))
    source = open_source(writer(tmp_path / "x", X))
    assert source.fortran
    for start, stop in ((0, 90), (11, 12), (40, 90)):
        np.testing.assert_array_equal(source.read(start, stop), X[start:stop].astype("f4"))
    np.testing.assert_array_equal(source.take(np.array([5, 3, 88])), X[[5, 3, 88]].astype("f4"))


def test_source__deflated_blocks_in_order_inflate_once(tmp_path, monkeypatch):
    X = numbers(4000, 16)
    source = open_source(write_deflated(tmp_path / "x", X))
    rewinds = []
    rewind = type(source.payload)._rewind
    monkeypatch.setattr(
        type(source.payload), "_rewind", lambda self: (rewinds.append(1), rewind(self))
    )
    got = [source.read(i, i + 500) for i in range(0, 4000, 500)]
    np.testing.assert_array_equal(np.concatenate(got), X)
    assert len(rewinds) == 1
    np.testing.assert_array_equal(source.read(100, 200), X[100:200])
    assert len(rewinds) == 2


def test_npz__members_need_a_key(tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, osnet=numbers(3, 4), color=numbers(3, 2))
    assert open_source(file, "color").n_features == 2
    with pytest.raises(BadInput, match="choose one by its key: 'osnet', 'color'"):
        open_source(file)
    with pytest.raises(BadInput, match="did you mean 'osnet'"):
        open_source(file, "osnt")


def test_npz__code_in_a_member_is_not_run(tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, X=np.array([[object()]], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match="holds objects"):
        open_source(file, "X")


@pytest.mark.parametrize("writer", [write_npy, write_npz, write_deflated, write_safetensors])
def test_source__cut_anywhere_is_bad_input(tmp_path, writer):
    file = writer(tmp_path / "x", numbers(3, 2))
    content = file.read_bytes()
    for n in range(len(content)):
        file.write_bytes(content[:n])
        with pytest.raises(BadInput):
            open_source(file)


@pytest.mark.parametrize(
    "writer",
    [
        write_npy,
        write_npz,
        write_deflated,
        write_safetensors,
        write_columns,
        write_lists,
        write_hdf5,
    ],
)
@settings(quick, max_examples=150)
@given(data=st.data())
def test_source__damaged_bytes_never_raise_anything_else(tmp_path, writer, data):
    file = writer(tmp_path / "x", numbers(6, 2))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content))
    message = ""
    try:
        source = open_source(file)
        assert source.read(0, min(6, source.n_rows)).dtype == np.float32
    except BadInput as error:
        message = str(error)
    assert not message or str(file) in message


def test_source__deflated_member_that_was_damaged(tmp_path):
    file = write_deflated(tmp_path / "x", numbers(5000, 4))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))
    source = open_source(file)
    with pytest.raises(BadInput, match=r"damaged in 'X\.npy'"):
        source.read(0, 5000)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.zeros(5), r"shape \(5,\): a matrix of rows is needed"),
        (np.zeros((2, 2, 2)), "a matrix of rows is needed"),
        (np.zeros((0, 3)), "no rows"),
        (np.zeros((2, 2), "c8"), "plain numbers"),
        (np.array([["a"]]), "plain numbers"),
        (np.zeros((2, 2), [("a", "f4")]), "plain numbers"),
    ],
)
def test_npy__what_is_no_matrix_is_refused(tmp_path, value, reason):
    with pytest.raises(BadInput, match=reason):
        open_source(write_npy(tmp_path / "x", value))


def test_source__names_a_file_that_was_meant(tmp_path):
    write_npy(tmp_path / "osnet", numbers(3, 2))
    with pytest.raises(BadInput, match=r"no file .*osnt.npy; did you mean 'osnet.npy'"):
        open_source(tmp_path / "osnt.npy")
    with pytest.raises(BadInput, match="no folder"):
        open_source(tmp_path / "nowhere" / "x.npy")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"a,b\n1,2\n", "none of the formats"),
        (b"\x1f\x8b\x08", "compressed by gzip"),
        (b"BZh9", "compressed by bzip2"),
    ],
)
def test_source__other_files_are_refused(tmp_path, content, reason):
    file = tmp_path / "x.bin"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=reason):
        open_source(file)


def test_source__content_goes_before_the_ending(tmp_path):
    X = numbers(4, 2)
    file = write_npy(tmp_path / "x", X).rename(tmp_path / "x.pickle")
    np.testing.assert_array_equal(open_source(file).read(0, 4), X)


def write_table(tmp_path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


@pytest.mark.parametrize("name", ["path", "Paths", "file", "FILENAME", "image"])
def test_parquet__column_of_paths(tmp_path, name):
    file = write_table(tmp_path, **{"a": [1.0, 2.0], name: ["x\\1.jpg", "./2.jpg"], "b": [3, 4]})
    source = open_source(file)
    assert source.paths == ("x/1.jpg", "2.jpg")
    np.testing.assert_array_equal(source.read(0, 2), [[1, 3], [2, 4]])
    with pytest.raises(RuntimeError, match="paths stay"):
        _ = pickle.loads(pickle.dumps(source)).paths


def test_parquet__column_of_vectors_beside_others(tmp_path):
    file = write_table(tmp_path, path=["a", "b"], label=["x", "y"], v=[[1.0, 2.0], [3.0, 4.0]])
    source = open_source(file)
    assert source.paths == ("a", "b")
    np.testing.assert_array_equal(source.read(0, 2), [[1, 2], [3, 4]])
    file = write_table(tmp_path, v=[[1.0], [3.0]], w=[[5.0, 6.0], [7.0, 8.0]])
    np.testing.assert_array_equal(open_source(file, "w").read(1, 2), [[7, 8]])
    with pytest.raises(BadInput, match="choose one by its key: 'v', 'w'"):
        open_source(file)


def test_parquet__missing_values_are_nan(tmp_path):
    file = write_table(tmp_path, a=[1.0, None], b=[None, 2], c=pa.array([True, None]))
    got = open_source(file).read(0, 2)
    np.testing.assert_array_equal(got, [[1, np.nan, 1], [np.nan, 2, np.nan]])


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"a": [1.0], "label": ["car"]}, "column 'label' of string"),
        ({"id": [1], "a": [1.0]}, "'id' that looks like a row number"),
        ({"path": ["a"]}, "no columns of numbers"),
        ({"a": [1.0], "path": [None]}, "no path in row 0|of null"),
        ({"v": [[1.0, 2.0], [3.0, 4.0], [5.0]]}, "vector of 1 values in row 2 .* has 2"),
        ({"v": [[1.0, 2.0], None]}, "no vector in row 1"),
        ({"v": [[1.0], [2.0, 3.0], []]}, "vector of 2 values in row 1"),
        ({"v": [[], [1.0]]}, "no vector in row 0"),
        ({"v": [["a"]]}, "not of numbers"),
        ({"a": pa.array([], pa.float32())}, "no rows"),
    ],
)
def test_parquet__what_is_no_matrix_is_refused(tmp_path, columns, reason):
    with pytest.raises(BadInput, match=reason):
        open_source(write_table(tmp_path, **columns))


def test_parquet__of_pandas(tmp_path):
    pd = pytest.importorskip("pandas")
    X = numbers(9, 3)
    frame = pd.DataFrame(X, columns=["a", "b.c", "d"], index=[f"i{i}" for i in range(9)])
    frame.to_parquet(tmp_path / "x.parquet")
    np.testing.assert_array_equal(open_source(tmp_path / "x.parquet").read(2, 9), X[2:])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr__group_needs_a_key(tmp_path, zarr_format):
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=zarr_format)
    X = numbers(10, 3)
    for name in ("osnet", "deep/color"):
        group.create_array(name, shape=X.shape, chunks=(4, 3), dtype="f4")[:] = X
    source = open_source(tmp_path / "x.zarr", "deep/color")
    np.testing.assert_array_equal(source.read(3, 10), X[3:])
    with pytest.raises(BadInput, match="choose one by its key"):
        open_source(tmp_path / "x.zarr")
    with pytest.raises(BadInput, match=r"no key '\.\./x'"):
        open_source(tmp_path / "x.zarr", "../x")


def test_zarr__codec_that_runs_code_is_refused(tmp_path):
    folder = write_zarr(tmp_path / "x", numbers(7, 3), 2)
    target = tmp_path / "touched"

    class Touch:
        def __reduce__(self) -> Any:
            return Path.touch, (target,)

    metadata = json.loads((folder / ".zarray").read_text())
    metadata |= {"compressor": None, "filters": [{"id": "pickle", "protocol": 4}]}
    (folder / ".zarray").write_text(json.dumps(metadata))
    for chunk in folder.glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Touch()))
    with pytest.raises(BadInput, match="codec 'pickle'"):
        open_source(folder)
    assert not target.exists()
    pickle.loads(pickle.dumps(Touch()))
    assert target.exists()


def test_zarr__shards_and_damage(tmp_path):
    X = numbers(64, 4)
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=X.shape, chunks=(4, 4), shards=(16, 4), dtype="f4"
    )
    array[:] = X
    np.testing.assert_array_equal(open_source(tmp_path / "x.zarr").read(5, 60), X[5:60])
    (tmp_path / "x.zarr" / "zarr.json").write_text("{")
    with pytest.raises(BadInput, match=r"zarr\.json cannot be read"):
        open_source(tmp_path / "x.zarr")
    with pytest.raises(BadInput, match="is no zarr folder"):
        open_source(tmp_path)


def test_hdf5__says_what_to_install(tmp_path, monkeypatch):
    file = write_hdf5(tmp_path / "x", numbers(3, 2))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BadInput, match=r"pip install 'vehclust-dask\[hdf5\]'"):
        open_source(file)


def test_hdf5__other_files_are_not_followed(tmp_path):
    h5py = pytest.importorskip("h5py")
    write_hdf5(tmp_path / "other", numbers(3, 2))
    file = tmp_path / "x.h5"
    with h5py.File(file, "w") as container:
        container["link"] = h5py.ExternalLink("other.h5", "deep/X")
        layout = h5py.VirtualLayout((3, 2), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "deep/X", shape=(3, 2))
        container.create_virtual_dataset("virtual", layout)
    with pytest.raises(BadInput, match="no key 'link'"):
        open_source(file, "link")
    with pytest.raises(BadInput, match="keeps its numbers in other files"):
        open_source(file, "virtual")


def test_hdf5__the_only_matrix_among_others(tmp_path):
    h5py = pytest.importorskip("h5py")
    X = numbers(5, 2)
    with h5py.File(tmp_path / "x.h5", "w") as container:
        container["labels"] = np.arange(5)
        container["X"] = X
    np.testing.assert_array_equal(open_source(tmp_path / "x.h5").read(1, 5), X[1:])
    with pytest.raises(BadInput, match="a matrix of rows is needed"):
        open_source(tmp_path / "x.h5", "labels")


MEASURE = """
    import sys
    from vehclust_dask.store.sources import open_source
    def peak():  # of this program alone; getrusage would start with the parent's peak
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    source = open_source(sys.argv[1])
    source.read(0, 10)
    before = peak()
    n = int(sys.argv[2])
    for i in range(0, source.n_rows, n):
        source.read(i, min(i + n, source.n_rows))
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "writer", [write_pickle, write_deflated, write_columns, write_fixed_lists, write_zarr]
)
def test_source__reading_takes_little_memory(tmp_path, writer, monkeypatch):
    monkeypatch.setattr(
        pq, "write_table", lambda t, f, row_group_size=0, _w=pq.write_table: _w(t, f)
    )
    create = zarr.create_array
    monkeypatch.setattr(
        zarr, "create_array", lambda *a, **k: create(*a, **(k | {"chunks": (2000, 64)}))
    )
    X = np.random.default_rng(0).normal(size=(100_000, 64))  # 51 MB as float64
    file = writer(tmp_path / "x", X)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(file), "4096"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # 4,096 rows are 2 MB as stored; buffers are 4 MiB, zarr's 16 MiB with a thread each.
    allowed = {write_pickle: 10_000, write_deflated: 10_000, write_zarr: 40_000}
    assert int(run.stdout) < allowed.get(writer, 25_000)


def test_npz__zip_that_is_no_npz(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BadInput, match="holds 0 arrays"):
        open_source(tmp_path / "x.npz")
