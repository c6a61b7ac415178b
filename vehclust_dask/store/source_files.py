"""Open files that hold plain numbers in place: pickle, npy, npz and safetensors."""

from __future__ import annotations

import ast
import io
import json
import math
import struct
import zipfile
import zlib
from typing import IO, Any, NoReturn, TypeGuard

import numpy as np

from vehclust_dask.errors import BadInput, nearest
from vehclust_dask.store.payloads import Deflated, Encoded, InPlace, Payload
from vehclust_dask.store.pickle_tokens import IN_PLACE
from vehclust_dask.store.pickles import PickledMatrix, locate
from vehclust_dask.store.source_arrays import MatrixSource, Names, VectorsSource
from vehclust_dask.store.storage import about, stream

#: Decoded bytes between two places from which a payload written as text can be decoded.
TEXT_STEP = 4 << 20
#: The same where columns are read piece by piece.
_FORTRAN_TEXT_STEP = 1 << 16
#: A deflated matrix in Fortran order is inflated whole for every block: only up to this size.
_MAX_DEFLATED_FORTRAN = 256 << 20
_MAX_NPY_HEADER = 1 << 16
_MAX_SAFETENSORS_HEADER = 100 << 20

#: Types that a matrix of descriptors may have, as numpy writes them without the byte order.
_NUMBERS = frozenset(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))
_SAFETENSORS = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4",
    "I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


def refuse(file: str, reason: str) -> NoReturn:
    """Raise BadInput about a file."""
    raise BadInput(f"{file} {reason}")


def check_matrix(file: str, what: str, shape: tuple[int, ...], dtype: str) -> tuple[int, int]:
    """Return rows and columns of a matrix of numbers; refuse everything else."""
    if dtype[1:] not in _NUMBERS:
        refuse(file, f"{what}holds type {dtype}: a matrix of plain numbers is needed")
    if len(shape) != 2:
        refuse(file, f"{what}has shape {shape}: a matrix of rows is needed")
    if shape[0] == 0 or shape[1] == 0:
        refuse(file, f"{what}has shape {shape}: there are no rows or no columns")
    return shape[0], shape[1]


def choose_key(file: str, key: str | None, keys: list[str]) -> str:
    """Return the key, or the only one there is."""
    if key is not None:
        if key not in keys:
            refuse(file, f"has no key '{key}'; {nearest(key, keys[:1000])}")
        return key
    if len(keys) != 1:
        shown = ", ".join(f"'{name}'" for name in keys[:12]) or "nothing"
        refuse(file, f"holds {len(keys)} arrays; choose one by its key: {shown}")
    return keys[0]


def open_pickle(file: str, key: str | None) -> MatrixSource | VectorsSource:
    """Open a pickle; nothing in it is executed. See `pickles.locate`."""
    found = locate(file, key)
    names = Names(found.paths)
    if not isinstance(found, PickledMatrix):
        if found.paths is not None and len(set(found.paths)) != len(found.paths):
            refuse(file, "holds two vectors for one path")
        width, dtype = found.n_features, found.dtype
        return VectorsSource(file, key, width, dtype, found.offsets, found.sizes, found.form, names)
    payload: Payload = InPlace(file, found.offset)
    if found.form != IN_PLACE:
        payload = Encoded.measure(
            file,
            found.offset,
            found.size,
            found.form,
            expected=math.prod(found.shape) * np.dtype(found.dtype).itemsize,
            every=_FORTRAN_TEXT_STEP if found.fortran else TEXT_STEP,
        )
    return MatrixSource(file, key, *found.shape, found.dtype, payload, found.fortran, names)


def open_npy(file: str, key: str | None) -> MatrixSource:
    """Open what ``numpy.save`` wrote."""
    if key is not None:
        refuse(file, f"holds one array and has no key '{key}'; leave the key out")
    with stream(file) as opened:
        shape, dtype, fortran = read_npy_header(file, "", opened)
        offset = opened.tell()
    n_rows, n_features = check_matrix(file, "", shape, dtype)
    expected = offset + math.prod(shape) * np.dtype(dtype).itemsize
    if (size := about(file).size) != expected:
        refuse(
            file, f"is damaged: a matrix of shape {shape} needs {expected:,} bytes, not {size:,}"
        )
    return MatrixSource(file, None, n_rows, n_features, dtype, InPlace(file, offset), fortran)


def read_npy_header(file: str, what: str, stream: IO[bytes]) -> tuple[tuple[int, ...], str, bool]:
    """Read the header of the npy format (NEP 1); return shape, type and whether Fortran order."""
    magic = stream.read(8)
    if len(magic) != 8 or magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        refuse(file, f"{what}is no array in numpy's format; write it with numpy.save")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    text = stream.read(min(length, _MAX_NPY_HEADER))
    if len(text) != length:
        refuse(file, f"{what}is damaged: its header does not fit")
    try:
        header = ast.literal_eval(text.decode("utf-8" if magic[6] == 3 else "latin-1"))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        refuse(file, f"{what}is damaged: its header cannot be read")
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        refuse(file, f"{what}is damaged: its header is not that of an array")
    shape, descr = header["shape"], header["descr"]
    if not isinstance(descr, str) or descr[:1] not in "<>|" or descr[1:] not in _NUMBERS:
        kind = "objects" if descr == "|O" else "records, text, dates or an unusual type"
        refuse(file, f"{what}holds {kind}: a matrix of plain numbers is needed")
    if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
        refuse(file, f"{what}is damaged: its shape is not made of counts")
    return shape, descr, bool(header["fortran_order"])


def open_npz(file: str, key: str | None) -> MatrixSource:
    """Open a member of what ``numpy.savez`` or ``numpy.savez_compressed`` wrote.

    A stored member is read in place. A deflated one is inflated from its beginning: cheap when
    blocks are read in order, and in memory that does not grow.
    """
    try:
        with stream(file) as packed, zipfile.ZipFile(packed) as archive:
            keys = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
            name = choose_key(file, key, keys)
            member = archive.getinfo(name + ".npy")
            with archive.open(member) as opened:
                what = f"['{name}'] "
                shape, dtype, fortran = read_npy_header(file, what, opened)
                offset = opened.tell()
    except (
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        EOFError,
        OSError,
        UnicodeDecodeError,
    ) as error:
        refuse(file, f"cannot be read as npz: {error}")
    n_rows, n_features = check_matrix(file, what, shape, dtype)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if member.file_size != offset + size:
        refuse(file, f"{what}is damaged: shape {shape} needs {size:,} bytes")
    payload: Payload = Deflated(file, member.filename, offset)
    if member.compress_type == zipfile.ZIP_STORED:
        payload = InPlace(file, _member_offset(file, member) + offset)
    elif fortran and size > _MAX_DEFLATED_FORTRAN:
        refuse(
            file,
            f"{what}is deflated in Fortran order, which cannot be read by rows; "
            "save numpy.ascontiguousarray of it",
        )
    return MatrixSource(file, key, n_rows, n_features, dtype, payload, fortran)


def _member_offset(file: str, member: zipfile.ZipInfo) -> int:
    """Return where the bytes of a stored member begin: behind its local header."""
    with stream(file) as opened:
        opened.seek(member.header_offset)
        head = opened.read(30)
    if len(head) != 30 or head[:4] != b"PK\x03\x04":
        refuse(file, f"is damaged: '{member.filename}' has no header")
    name_length, extra_length = struct.unpack("<HH", head[26:30])
    start = int(member.header_offset) + 30 + int(name_length) + int(extra_length)
    if start + member.file_size > about(file).size:
        refuse(file, f"is damaged: '{member.filename}' reaches beyond the end")
    return start


def open_safetensors(file: str, key: str | None) -> MatrixSource:
    """Open a tensor of a safetensors file: a JSON header, then plain little-endian numbers."""
    size = about(file).size
    with stream(file) as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_SAFETENSORS_HEADER):
            refuse(file, "is no safetensors file, or cut off: its header does not fit")
        tensors = _tensors(file, opened.read(length))
    name = choose_key(file, key, list(tensors))
    what, tensor = f"['{name}'] ", tensors[name]
    shape, offsets = tensor.get("shape"), tensor.get("data_offsets")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        refuse(file, f"{what}is damaged: its shape or place is not made of counts")
    dtype = _SAFETENSORS.get(str(tensor.get("dtype")))
    if dtype is None:
        refuse(file, f"{what}holds type {tensor.get('dtype')}; save it as F32 or F16")
    n_rows, n_features = check_matrix(file, what, tuple(shape), dtype)
    begin, end = 8 + length + offsets[0], 8 + length + offsets[1]
    if end - begin != n_rows * n_features * np.dtype(dtype).itemsize or end > size:
        refuse(file, f"{what}is damaged or cut off: its bytes do not fit its shape")
    return MatrixSource(file, key, n_rows, n_features, dtype, InPlace(file, begin))


def _tensors(file: str, header: bytes) -> dict[str, dict[str, Any]]:
    try:
        entries = json.load(io.BytesIO(header))
    except (ValueError, RecursionError):
        refuse(file, "is no safetensors file: its header is no JSON")
    if not isinstance(entries, dict):
        refuse(file, "is no safetensors file: its header is no JSON object")
    entries.pop("__metadata__", None)
    if not all(isinstance(entry, dict) for entry in entries.values()):
        refuse(file, "is damaged: its header does not describe tensors")
    return entries


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(n) is int and n >= 0 for n in values)
