"""Pickles are read without being executed, whatever is done to them."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vehclust_dask.errors import BadInput
from vehclust_dask.store.pickles import PickledMatrix, PickledVectors, locate
from vehclust_dask.store.source_files import open_pickle

DTYPES = ["b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def shared() -> Path:
    folder = Path(__file__).resolve().parents[2] / "../shared/data/roadside"
    if not folder.is_dir():
        pytest.skip("the real data do not lie beside the project")
    return folder


@pytest.fixture
def write(tmp_path: Path):
    def put(content: bytes) -> str:
        file = tmp_path / "x.pickle"
        file.write_bytes(content)
        return str(file)

    return put


def matrix(dtype: str, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return numbers whose bytes are all values from 0 to 255, but finite."""
    rng = np.random.default_rng(seed)
    if dtype[-2:] == "b1":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype[-2] in "iu":
        known = np.dtype(dtype)
        limits = np.iinfo(known)
        values = rng.integers(limits.min, limits.max, shape, known.newbyteorder("="), endpoint=True)
        return values.astype(known)
    return rng.normal(0, 100, shape).astype(dtype)


def as_float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values.astype(np.float32))


def check_reads(file: str, expected: np.ndarray, key: str | None = None) -> None:
    source = pickle.loads(pickle.dumps(open_pickle(file, key)))
    assert (source.n_rows, source.n_features) == expected.shape
    n = len(expected)
    for start, stop in ((0, n), (n // 3, n), (0, 1), (n - 1, n), (n, n)):
        got = source.read(start, stop)
        assert got.dtype == np.float32
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, as_float32(expected[start:stop]))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", DTYPES)
def test_pickle__every_protocol_type_order_reads_as_loaded(write, protocol, dtype):
    for order in "<>":
        for layout in "CF":
            X = np.array(matrix(order + dtype, (7, 5)), order=layout)
            file = write(pickle.dumps(X, protocol))
            found = locate(file)
            assert isinstance(found, PickledMatrix)
            assert np.dtype(found.dtype) == X.dtype
            check_reads(file, X)


@quick
@given(
    protocol=st.integers(0, 5),
    dtype=st.sampled_from(DTYPES),
    order=st.sampled_from("<>"),
    layout=st.sampled_from("CF"),
    n_rows=st.integers(1, 40),
    n_features=st.integers(1, 9),
    step=st.sampled_from([1, 2, -1]),
    seed=st.integers(0, 99),
)
def test_pickle__any_matrix_any_rows(
    write, protocol, dtype, order, layout, n_rows, n_features, step, seed
):
    X = np.array(matrix(order + dtype, (n_rows, n_features), seed), order=layout)[::step]
    check_reads(write(pickle.dumps(X, protocol)), X)


def test_pickle__payload_in_place_is_found(write):
    X = matrix("<f4", (50, 8))
    content = pickle.dumps(X, 4)
    found = locate(write(content))
    assert isinstance(found, PickledMatrix)
    assert content[found.offset : found.offset + found.size] == X.tobytes()


@pytest.mark.parametrize("layout", "CF")
@pytest.mark.parametrize("protocol", [0, 2])
def test_pickle__text_payload_is_decoded_from_any_place(write, monkeypatch, protocol, layout):
    monkeypatch.setattr("vehclust_dask.store.source_files.TEXT_STEP", 1000)
    monkeypatch.setattr("vehclust_dask.store.source_files._FORTRAN_TEXT_STEP", 1000)
    monkeypatch.setattr("vehclust_dask.store.payloads._CHUNK", 300)
    X = np.array(np.random.default_rng(1).integers(0, 256, (300, 16)).astype("u1"), order=layout)
    source = open_pickle(write(pickle.dumps(X, protocol)), None)
    gaps = np.diff(source.payload.starts)
    assert len(gaps) >= 3
    assert gaps.min() >= 1000
    assert gaps.max() <= 1300  # a place comes at the end of the chunk that reaches the step
    for start in range(0, 300, 13):
        np.testing.assert_array_equal(
            source.read(start, min(start + 29, 300)), X[start : start + 29]
        )
    rows = np.random.default_rng(2).permutation(300)
    np.testing.assert_array_equal(source.take(rows), X[rows])


def python2_array(X: np.ndarray, protocol: int) -> bytes:
    """Write the opcodes that numpy under Python 2 writes: strings are bytes."""
    dtype = X.dtype
    raw = X.tobytes()
    if protocol == 0:
        quoted = "'" + "".join(
            chr(b) if 32 <= b < 127 and b not in (39, 92) else f"\\x{b:02x}" for b in raw
        ) + "'"  # fmt: skip
        payload = b"S" + quoted.encode() + b"\np9\n"
        word = lambda text: b"S'" + text + b"'\n"  # noqa: E731
        count = lambda n: b"I%d\n" % n  # noqa: E731
        end = b"tb."
    else:
        head = b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))
        payload = head + raw + b"q\x09"
        word = lambda text: b"U" + bytes([len(text)]) + text  # noqa: E731
        count = lambda n: b"\x8a\x02" + struct.pack("<h", n)  # noqa: E731 (a long)
        end = b"tb."
    order = dtype.str[0].encode()
    first = b"\x80\x02" if protocol == 2 else b""
    boolean = b"I01\n" if protocol == 0 else b"\x88"
    false = b"I00\n" if protocol == 0 else b"\x89"
    shape = b"(" + count(X.shape[0]) + count(X.shape[1]) + b"t"
    state = b"(" + count(3) + word(order) + b"NNN" + count(-1) + count(-1) + count(0) + b"tb"
    return (
        first + b"cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n("
        + count(0) + b"t" + word(b"b") + b"tRp3\n(" + count(1) + shape
        + b"cnumpy\ndtype\np4\n(" + word(dtype.str[1:].encode()) + false + boolean + b"tR"
        + state + false + payload + end
    )  # fmt: skip


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("shape", [(3, 4), (40, 16)])
def test_pickle__of_python_2(write, protocol, shape):
    X = np.random.default_rng(3).integers(0, 1 << 32, shape).astype("u4").view("u4").astype("<i4")
    content = python2_array(X, protocol)
    np.testing.assert_array_equal(pickle.loads(content, encoding="latin1"), X)  # honest opcodes
    check_reads(write(content), X)


@pytest.mark.parametrize("protocol", range(6))
def test_pickle__of_numpy_1(write, protocol):
    X = matrix("<f4", (4, 3))
    content = pickle.dumps(X, min(protocol, 3)).replace(b"numpy._core.", b"numpy.core.")
    check_reads(write(content), X)


@pytest.mark.parametrize("protocol", range(6))
def test_pickle__dict_of_matrices_needs_a_key(write, protocol):
    values = {"osnet": matrix("f4", (5, 4)), "color": matrix("f8", (5, 2)), "epoch": 3, "net": "b7"}
    file = write(pickle.dumps(values, protocol))
    check_reads(file, values["color"], "color")
    check_reads(file, values["osnet"], "osnet")
    with pytest.raises(BadInput, match="'osnet', 'color'"):
        locate(file)
    with pytest.raises(BadInput, match="no key 'osnett'; did you mean 'osnet'"):
        locate(file, "osnett")
    with pytest.raises(BadInput, match=r"'epoch'.*no array"):
        locate(file, "epoch")


def test_pickle__the_only_matrix_needs_no_key_and_brings_its_paths(write):
    X = matrix("f4", (3, 4))
    paths = ["a\\1.jpg", "a\\2.jpg", "./a/3.jpg"]
    file = write(pickle.dumps({"paths": paths, "features": X, "labels": np.arange(3)}, 4))
    check_reads_with_paths(file, X, ("a/1.jpg", "a/2.jpg", "a/3.jpg"))


def check_reads_with_paths(file: str, X: np.ndarray, paths: tuple[str, ...]) -> None:
    source = open_pickle(file, None)
    assert source.paths == paths
    np.testing.assert_array_equal(source.read(0, len(X)), X)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(1, len(X)), X[1:])
    with pytest.raises(RuntimeError, match="paths stay"):
        _ = copy.paths


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("rank", [1, 2])
def test_pickle__dict_of_vectors_is_a_matrix_with_paths(write, protocol, rank):
    X = matrix("<f4", (2500, 6))
    rows = X if rank == 1 else X[:, None, :]
    content = pickle.dumps({f"v\\{i}.jpg": row for i, row in enumerate(rows)}, protocol)
    file = write(content)
    assert isinstance(locate(file), PickledVectors)
    check_reads_with_paths(file, X, tuple(f"v/{i}.jpg" for i in range(2500)))
    order = np.random.default_rng(0).integers(0, 2500, 700)
    np.testing.assert_array_equal(open_pickle(file, None).take(order), X[order])


@pytest.mark.parametrize("protocol", range(6))
def test_pickle__list_of_vectors(write, protocol):
    X = matrix(">f8", (1200, 3))
    check_reads(write(pickle.dumps(list(X), protocol)), X)
    check_reads(write(pickle.dumps(tuple(X[:5]), protocol)), X[:5])
    check_reads(write(pickle.dumps({"features": list(X), "n": 3}, protocol)), X)


def test_pickle__list_of_matrices_takes_a_position(write):
    values = [matrix("f4", (5, 4), i) for i in range(3)]
    file = write(pickle.dumps(values, 4))
    check_reads(file, values[2], "2")
    with pytest.raises(BadInput, match="list of 3 arrays"):
        locate(file)
    with pytest.raises(BadInput, match="allowed: 0 to 2"):
        locate(file, "3")


def test_pickle__one_vector_used_twice(write):
    v = np.arange(4.0)
    check_reads(write(pickle.dumps([v, v + 1, v], 4)), np.array([v, v + 1, v]))


class Touch:
    """A pickle that would touch a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


class Os:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("true",)


class Evil(np.ndarray):
    """A subclass of arrays."""


@pytest.mark.parametrize("protocol", range(6))
def test_pickle__code_is_not_run(write, tmp_path, protocol):
    target = tmp_path / "touched"
    X = matrix("f4", (2, 2))
    for value in (Touch(target), [X, Touch(target)], {"a": X, "b": Touch(target)}):
        file = write(pickle.dumps(value, protocol))
        with pytest.raises(BadInput, match=r"would run code: .*(touch|getattr|pathlib)"):
            locate(file, "a")
        assert not target.exists()
    pickle.loads(pickle.dumps(Touch(target), protocol))
    assert target.exists()  # the pickle above was a real one
    with pytest.raises(BadInput, match=r"x.pickle would run code: (posix|nt|os).system"):
        locate(write(pickle.dumps(Os(), protocol)))


A = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
STATE = (
    b"(K\x01(K\x02K\x01tcnumpy\ndtype\n(X\x02\x00\x00\x00f4\x89\x88tR(K\x03X\x01\x00\x00\x00<NNN"
)
STATE += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C\x08" + bytes(8) + b"tb"


def test_pickle__the_hand_made_array_is_honest(write):
    np.testing.assert_array_equal(pickle.loads(A + STATE + b"."), np.zeros((2, 1)))
    check_reads(write(A + STATE + b"."), np.zeros((2, 1), np.float32))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"paths\na\\b.jpg\n", "no pickle"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (pickle.dumps("text", 4), "holds text"),
        (pickle.dumps([1.0, 2.0], 4), "list of a number"),
        (pickle.dumps({"a": 1}, 4), "no matrix"),
        (pickle.dumps({1, 2}, 4), "holds a set"),
        (pickle.dumps(np.float32(3), 4), "numpy.*scalar"),
        (pickle.dumps(np.zeros(5), 4), r"shape \(5,\): a matrix of rows is needed"),
        (pickle.dumps(np.zeros(()), 4), r"shape \(\): a matrix of rows is needed"),
        (pickle.dumps(np.zeros((2, 3, 4)), 5), r"shape \(2, 3, 4\)|axes"),
        (pickle.dumps(np.zeros((0, 4)), 2), "no rows or no columns"),
        (pickle.dumps(np.zeros((4, 0)), 4), "no rows or no columns"),
        (pickle.dumps(np.zeros((2, 2)).astype(object), 4), "array of objects"),
        (pickle.dumps(np.array([["ab"]]), 4), "holds text"),
        (pickle.dumps(np.zeros((2, 2), "M8[s]"), 4), "array of dates"),
        (pickle.dumps(np.zeros((2, 2), "c8"), 4), "complex"),
        (pickle.dumps(np.zeros((2, 2), [("a", "f4")]), 4), "array of records"),
        (pickle.dumps(np.zeros((2, 2)).view(Evil), 4), "would run code: .*Evil"),
        (b"cnumpy\nmatrix\n.", "numpy.*matrix"),
        (pickle.dumps([np.zeros(3), np.zeros(3), np.zeros(4)], 4), r"\[2\] has 4 values"),
        (pickle.dumps({"a": np.zeros(3), "b": np.zeros(3, "f4")}, 4), r"\['b'\] has 3 .*<f4"),
        (pickle.dumps([np.zeros(3), 5], 4), "arrays and of a number"),
        (pickle.dumps(np.zeros((2, 2)), 4) + b"x", "goes on for 1 bytes"),
        (pickle.dumps(np.zeros((2, 2)), 4) * 2, "goes on for"),
        (b"]P1\n.", "persistent"),
        (b"\x80\x04K\x01Q.", "persistent"),
        (b"(ios\nsystem\n.", "no pickle|would run code"),
        (b"\x80\x02(cnumpy\nndarray\no.", "would run code"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "would run code"),
        (b"\x80\x04cnumpy\nndarray\n)}\x92.", "would run code"),
        (b"\x80\x02\x82\x01.", "extension registry"),
        (b"cnumpy\nndarray\n(tR.", "would run code"),
        (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "would run code: builtins.eval"),
        (b"c__builtin__\nbytes\n(J\x00\x00\x00\x7ftR.", "bytes with arguments"),
        (A + b".", "has no numbers"),
        (b"]" + A + b"a.", "before it has numbers"),
        (
            A + STATE.replace(b"K\x02K\x01t", b"J\xfe\xff\xff\xffK\x01t") + b".",
            "not made of counts",
        ),
        (A + STATE.replace(b"K\x02K\x01t", b"J\xff\xff\xff\x7fK\x01t") + b".", "needs 8,589,934"),
        (A + STATE.replace(b"K\x02K\x01t", b"\x8a\xff" + b"\x7f" * 255 + b"t") + b".", "counts"),
        (A + STATE.replace(b"f4", b"f8") + b".", "needs 16 bytes"),
        (A + STATE.replace(b"f4", b"O8") + b".", "array of objects"),
        (A + STATE + STATE[1:] + b".", "damaged"),
        (b"\x80\x04" + b"]" * 10 + b".", "left over"),
        (b"(" * 100_000 + b".", "nested deeper"),
        (b"\x80\x04)" + b"\x85" * 100_000 + b".", "list of a tuple"),
        (b"\x80\x04N\x94r\xff\xff\xff\x7f.", "two ways"),
        (b"]h\x05.", "did not lay down"),
        (b"\x80\x05\x97.", "out-of-band"),
        (b"\x80\x07N.", "protocol 7"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", "beyond the end"),
        (b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00K\x01N.", "left over"),
        (b"\x80\x04\x95\x01\x00\x00\x00\x00\x00\x00\x00K\x01.", "cuts an opcode"),
        (b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00\x95" + bytes(8) + b"N.", "inside a frame"),
        (b"\x80\x04\x95\x04\x00\x00\x00\x00\x00\x00\x00N.NN", "goes on for 2 bytes"),
        (b"]F12..4e5e\na.", "is none"),
        (b"]L123" + b"0" * 5000 + b"L\na.", "too long"),
    ],
)
def test_pickle__what_is_no_matrix_is_refused_in_one_sentence(write, content, reason):
    with pytest.raises(BadInput, match=reason) as error:
        locate(write(content))
    assert "x.pickle" in str(error.value)
    assert "\n" not in str(error.value)


def test_pickle__dataframe_is_refused_with_a_hint(write):
    pd = pytest.importorskip("pandas")
    file = write(pickle.dumps(pd.DataFrame({"a": [1.0]}), 4))
    with pytest.raises(BadInput, match=r"pandas object; save it with \.to_parquet"):
        locate(file)


def test_pickle__out_of_band_buffers_are_refused(write):
    buffers: list[Any] = []
    content = pickle.dumps(matrix("f4", (9, 9)), 5, buffer_callback=buffers.append)
    assert buffers
    with pytest.raises(BadInput, match="out-of-band"):
        locate(write(content))


def test_pickle__millions_of_loose_values_are_refused(write):
    with pytest.raises(BadInput, match="millions of loose values"):
        locate(write(b"\x80\x04(" + b"N" * (3 << 20) + b"t."))
    with pytest.raises(BadInput, match="a list of None"):
        locate(write(pickle.dumps([None] * 100_000, 4)))


def small_pickles() -> list[bytes]:
    X = matrix("<f4", (3, 2))
    vectors = {f"a\\{i}": v for i, v in enumerate(X)}
    values = (X, np.asfortranarray(X), {"x": X, "y": X[:2]}, vectors, list(X))
    return [pickle.dumps(v, p) for p in range(6) for v in values] + [python2_array(X, 0)]


@pytest.mark.parametrize("content", small_pickles())
def test_pickle__cut_anywhere_is_bad_input(write, content):
    for n in range(len(content)):
        with pytest.raises(BadInput):
            open_pickle(write(content[:n]), "x" if b"y" in content else None)


def read_or_refuse(file: str) -> None:
    """Open and read; the only exception allowed is BadInput."""
    for key in (None, "x", "1"):
        try:
            source = open_pickle(file, key)
            assert source.payload_bytes < 10_000
            assert source.read(0, source.n_rows).shape == (source.n_rows, source.n_features)
        except BadInput:
            continue


@settings(quick, max_examples=400)
@given(
    content=st.sampled_from(small_pickles()),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_pickle__damaged_bytes_never_raise_anything_else(write, content, flips):
    damaged = bytearray(content)
    for where, value in flips:
        damaged[int(where * len(damaged))] = value
    read_or_refuse(write(bytes(damaged)))


def test_pickle__every_single_bit_flip_of_one_file(write):
    content = pickle.dumps({"x": matrix("<f4", (2, 2))}, 2)
    for i in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[i] ^= 1 << bit
            read_or_refuse(write(bytes(damaged)))


@settings(quick, max_examples=200)
@given(st.binary(max_size=200))
def test_pickle__random_bytes_never_raise_anything_else(write, content):
    read_or_refuse(write(content))
    read_or_refuse(write(b"\x80\x04" + content))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["efficientnet-lite0", "vehicle-attributes"])
def test_pickle__real_descriptors_read_as_loaded(shared, name):
    file = shared / f"{name}.pickle"
    with open(file, "rb") as stream:
        X = pickle.load(stream)
    source = open_pickle(str(file), None)
    np.testing.assert_array_equal(source.read(0, len(X)), X)
    np.testing.assert_array_equal(source.read(7001, 7777), X[7001:7777])
    rows = np.random.default_rng(0).permutation(len(X))[:3000]
    np.testing.assert_array_equal(source.take(rows), X[rows])


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")

MEASURE = """
    import sys, time
    from vehclust_dask.store.source_files import open_pickle
    def peak():  # of this program alone; getrusage would start with the parent's peak
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    before = peak()
    start = time.perf_counter()
    source = open_pickle(sys.argv[1], None)
    seconds = time.perf_counter() - start
    opened = peak()
    source.read(source.n_rows - 1000, source.n_rows)
    print(opened - before, peak() - before, seconds)
"""


def measure(file: Path) -> tuple[int, int, float]:
    """Return KiB of peak memory after opening, after a read, and seconds to open."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(file)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    opened, read, seconds = run.stdout.split()
    return int(opened), int(read), float(seconds)


@needs_proc
def test_pickle__a_large_file_is_opened_in_little_memory(tmp_path):
    n_rows, n_features = 300_000, 256  # 307 MB, a hole in the file
    size = 4 * n_rows * n_features
    small = pickle.dumps(np.zeros((n_rows, 1), np.uint8), 4)
    assert small.count(struct.pack("<I", n_rows)) == 2
    at = small.index(b"B" + struct.pack("<I", n_rows)) + 1
    head = small[:at].replace(b"u1", b"f4").replace(b"|", b"<")
    rows = b"J" + struct.pack("<I", n_rows)
    head = head.replace(rows + b"K\x01", rows + b"M\x00\x01")
    head = head[:3] + struct.pack("<Q", struct.unpack("<Q", head[3:11])[0] + 1) + head[11:]
    file = tmp_path / "large.pickle"
    with open(file, "wb") as stream:
        stream.write(head + struct.pack("<I", size))
        stream.seek(size, io.SEEK_CUR)
        stream.write(small[at + 4 + n_rows :])
    opened, read, seconds = measure(file)
    assert opened < 4_000
    assert read < 8_000  # 1,000 rows are 1 MB
    assert seconds < 0.5


@needs_proc
def test_pickle__a_large_text_payload_is_scanned_in_little_memory(tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (20_000, 1000)).astype(np.uint8)
    file = tmp_path / "text.pickle"
    file.write_bytes(pickle.dumps(X, 2))
    opened, read, _ = measure(file)
    assert opened < 8_000
    assert read < 16_000  # 1,000 rows are 4 MB as float32


@needs_proc
def test_pickle__many_vectors_are_walked_quickly(tmp_path):
    n = 20_000
    X = np.random.default_rng(0).normal(size=(n, 32)).astype(np.float32)
    file = tmp_path / "many.pickle"
    file.write_bytes(pickle.dumps({f"v/{i:06d}.jpg": row for i, row in enumerate(X)}, 4))
    opened, _, seconds = measure(file)
    assert opened < 16_000
    assert seconds < 10  # a guard against squares, not a measurement
