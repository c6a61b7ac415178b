"""Sums over features in eight lanes, the order of additions fixed and the processor's width used.

The compiler must not reorder a sum by itself (no fast math), and does not see that eight separate
sums are one vector. Here it is told so: the additions and their order are those of the eight sums.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_EIGHT = ir.VectorType(ir.DoubleType(), 8)


def _load_eight(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Load eight values from position ``at`` on, as float64."""
    view = context.make_array(kind)(context, builder, array)
    scalar = context.get_data_type(kind.dtype)
    if kind.layout == "C":
        vector = ir.VectorType(scalar, 8)
        place = builder.bitcast(builder.gep(view.data, [at]), vector.as_pointer())
        values = builder.load(place, align=kind.dtype.bitwidth // 8)
    else:
        stride = builder.extract_value(view.strides, 0)
        values = ir.Constant(ir.VectorType(scalar, 8), ir.Undefined)
        for lane in range(8):
            here = builder.add(at, ir.Constant(at.type, lane))
            place = cgutils.pointer_add(builder, view.data, builder.mul(here, stride))
            lane_at = ir.Constant(ir.IntType(32), lane)
            values = builder.insert_element(values, builder.load(place), lane_at)
    return values if kind.dtype == types.float64 else builder.fpext(values, _EIGHT)


@intrinsic
def sq_difference_lanes(typing_context: Any, x: Any, c: Any, n: Any) -> Any:
    """Return eight sums of squared differences, lane k over the positions k, k + 8, ... below n.

    Parameters
    ----------
    x, c : ndarray of shape (n_features,), float32 or float64
    n : int
        A multiple of eight.
    """
    for kind in (x, c):
        if not isinstance(kind, types.Array) or kind.dtype not in (types.float32, types.float64):
            return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums = cgutils.alloca_once_value(builder, ir.Constant(_EIGHT, [0.0] * 8))
        eight = ir.Constant(args[2].type, 8)
        with cgutils.for_range(builder, builder.sdiv(args[2], eight)) as loop:
            at = builder.mul(loop.index, eight)
            left = _load_eight(context, builder, x, args[0], at)
            step = builder.fsub(left, _load_eight(context, builder, c, args[1], at))
            total = builder.fadd(builder.load(sums), builder.fmul(step, step))
            builder.store(total, sums)
        found = builder.load(sums)
        lanes = [builder.extract_element(found, ir.Constant(ir.IntType(32), k)) for k in range(8)]
        return context.make_tuple(builder, signature.return_type, lanes)

    return types.UniTuple(types.float64, 8)(x, c, types.intp), generate
