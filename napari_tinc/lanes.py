"""The restoration filter of eight voxels at once, spelt out as vectors for LLVM.

Of loops over the short rows of a box it makes vectors, too, but has to find out for each that no two rows share
memory, and reads and writes them again and again. These run on any processor. Operations and their order are those of
``docs/format.md``, so that a voxel comes out the same in whichever lane.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

Floats32 = npt.NDArray[np.float32]

LANES = 8
# Neighbours on either side along every axis, and what a voxel is filtered by: a feature of each two of them.
RADIUS = 2
FEATURES = 3 * RADIUS
# What is seen of eight voxels: their features, activities, and sums of features.
SEEN = FEATURES + 2

_INT, _LONG, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_INT, LANES), ir.VectorType(_FLOAT, LANES)
# Three steps exchange rows and columns of 8 x 8: places of the halves of two vectors, one after the other.
_EXCHANGES = (
    ((0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15)),
    ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
    ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
)

# Where they leave the columns.
_COLUMNS = (0, 2, 1, 3, 4, 6, 5, 7)


@intrinsic
def look(typing: Any, line: Any, memory: Any, places: Any, x: Any, seen: Any) -> Any:
    """Look at eight voxels of a row.

    Parameters
    ----------
    line : ndarray of float32
        The row with two neighbours on either side.
    memory : ndarray of float32
    places : tuple of eight int
        Where in memory the rows before and behind begin: planes next to this one, planes beyond these, rows likewise.
    x : int64
        Of the first voxel.
    seen : ndarray of float32, shape (8, 8)
        Receives features, activities, and sums of features.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row = _Row.of(context, builder, signature, arguments)
        _, features, activity, total = row.seen()
        start = context.make_array(seen)(context, builder, arguments[4]).data
        for number, values in enumerate([*features, activity, total]):
            row.store(values, start, _LONG(number * LANES))
        return context.get_dummy_value()

    return types.void(line, memory, places, x, seen), generate


@intrinsic
def restore(
    typing: Any, line: Any, memory: Any, places: Any, x: Any, thresholds: Any, weights: Any, scale: Any, offset: Any,
    minimum: Any, maximum: Any, integers: Any, out: Any,
) -> Any:  # fmt: skip
    """Filter eight voxels of a row, and map them.

    Parameters
    ----------
    line, memory, places, x
        As for :func:`look`.
    thresholds : ndarray of float32
    weights : ndarray of float32, shape (2 * bins, 8)
        By bin and by whether the features add up to more than 0; the last two of each are not used.
    scale, offset, minimum, maximum : float32
    integers : bool
        Whether they are rounded before they are clipped.
    out : ndarray of float32
        Row that receives them.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row = _Row.of(context, builder, signature, arguments)
        edges, table, target = (
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (4, 5, 11)
        )
        values, features, activity, total = row.seen()
        above = builder.fcmp_ordered(">", total, _all(0.0))
        number: Any = cgutils.alloca_once_value(builder, builder.zext(above, _INTS))  # type: ignore[no-untyped-call]
        with cgutils.for_range(builder, edges.nitems) as loop:
            reached = builder.fcmp_ordered(
                ">=", activity, row.spread(builder.load(builder.gep(edges.data, [loop.index])))
            )
            two = builder.select(reached, ir.Constant(_INTS, [2] * LANES), ir.Constant(_INTS, [0] * LANES))
            builder.store(builder.add(builder.load(number), two), number)
        numbers = builder.load(number)
        chosen = []
        for lane in range(LANES):
            place = builder.zext(builder.extract_element(numbers, _INT(lane)), _LONG)
            chosen.append(row.load(table.data, builder.mul(place, _LONG(LANES))))
        for feature, weight in zip(features, row.exchanged(chosen), strict=False):
            values = builder.fadd(values, builder.fmul(weight, feature))
        scale, offset, least, most = map(row.spread, arguments[6:10])
        values = builder.fadd(builder.fmul(values, scale), offset)
        values = builder.select(builder.trunc(arguments[10], ir.IntType(1)), row.by("llvm.rint", values), values)
        values = builder.select(builder.fcmp_ordered(">", values, least), values, least)
        values = builder.select(builder.fcmp_ordered("<", values, most), values, most)
        row.store(values, target.data, arguments[3])
        return context.get_dummy_value()

    return types.void(
        line, memory, places, x, thresholds, weights, scale, offset, minimum, maximum, integers, out
    ), generate


class _Row(NamedTuple):
    """What generates code about eight voxels of a row."""

    builder: Any
    line: Any
    memory: Any
    places: list[Any]
    x: Any

    @classmethod
    def of(cls, context: Any, builder: Any, signature: Any, arguments: Any) -> _Row:
        line, memory = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 1))
        places = [builder.extract_value(arguments[2], i) for i in range(4 * RADIUS)]
        return cls(builder, line, memory, places, arguments[3])

    def load(self, start: Any, place: Any) -> Any:
        return self.builder.load(self._vector(start, place), align=4)

    def store(self, values: Any, start: Any, place: Any) -> None:
        self.builder.store(values, self._vector(start, place), align=4)

    def _vector(self, start: Any, place: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(start, [place]), _FLOATS.as_pointer())

    def by(self, name: str, values: Any) -> Any:
        function = self.builder.module.declare_intrinsic(
            f"{name}.v{LANES}f32", fnty=ir.FunctionType(_FLOATS, [_FLOATS])
        )
        return self.builder.call(function, [values])

    def spread(self, value: Any) -> Any:
        nothing = ir.Constant(_FLOATS, ir.Undefined)
        first = self.builder.insert_element(nothing, value, _INT(0))
        return self.builder.shuffle_vector(first, nothing, ir.Constant(_INTS, [0] * LANES))

    def seen(self) -> tuple[Any, list[Any], Any, Any]:
        """Voxels, their features, their activities and the sums of their features."""
        builder, add = self.builder, self.builder.fadd
        in_line = [self.load(self.line, builder.add(self.x, _LONG(i))) for i in range(2 * RADIUS + 1)]
        elsewhere = [self.load(self.memory, builder.add(place, self.x)) for place in self.places]
        centre = in_line[RADIUS]
        pairs = [*zip(elsewhere[::2], elsewhere[1::2], strict=True)]
        pairs += [(in_line[RADIUS - r], in_line[RADIUS + r]) for r in range(1, RADIUS + 1)]
        activity, total, features = _all(0.0), _all(0.0), []
        for before, behind in pairs:
            low, high = builder.fsub(before, centre), builder.fsub(behind, centre)
            features.append(builder.fmul(_all(0.5), add(low, high)))
            activity = add(activity, add(self.by("llvm.fabs", low), self.by("llvm.fabs", high)))
            total = add(total, features[-1])
        return centre, features, activity, total

    def exchanged(self, rows: list[Any]) -> list[Any]:
        """Columns of eight rows."""
        for step, halves in enumerate(_EXCHANGES):
            apart, made = 1 << step, [None] * LANES
            for i in (i for i in range(LANES) if not i & apart):
                for half, places in enumerate(halves):
                    mask = ir.Constant(_INTS, list(places))
                    made[i + half * apart] = self.builder.shuffle_vector(rows[i], rows[i + apart], mask)
            rows = made
        return [rows[i] for i in _COLUMNS]


def _all(value: float) -> Any:
    return ir.Constant(_FLOATS, [value] * LANES)


def _seen(line: Floats32, memory: Floats32, places: tuple[int, ...], x: int) -> tuple[Floats32, Floats32]:
    centre = line[x + RADIUS : x + RADIUS + LANES]
    pairs = [
        (memory[a + x : a + x + LANES], memory[b + x : b + x + LANES])
        for a, b in zip(places[::2], places[1::2], strict=True)
    ]
    pairs += [(line[x + RADIUS - r :][:LANES], line[x + RADIUS + r :][:LANES]) for r in range(1, RADIUS + 1)]
    seen = np.zeros((SEEN, LANES), np.float32)
    for i, (before, behind) in enumerate(pairs):
        low, high = before - centre, behind - centre
        seen[i] = np.float32(0.5) * (low + high)
        seen[FEATURES] += abs(low) + abs(high)
        seen[FEATURES + 1] += seen[i]
    return centre, seen


def _look_interpreted(line: Any, memory: Any, places: Any, x: Any, seen: Any) -> None:
    seen[...] = _seen(line, memory, places, x)[1]


def _restore_interpreted(
    line: Any, memory: Any, places: Any, x: Any, thresholds: Any, weights: Any, scale: Any, offset: Any, minimum: Any,
    maximum: Any, integers: Any, out: Any,
) -> None:  # fmt: skip
    values, seen = _seen(line, memory, places, x)
    numbers = (seen[FEATURES + 1] > 0) + 2 * (seen[FEATURES] >= thresholds[:, None]).sum(0)
    for i in range(FEATURES):
        values = values + weights[numbers, i] * seen[i]
    values = values * scale + offset
    out[x : x + LANES] = np.clip(np.rint(values) if integers else values, minimum, maximum)


# Where kernels are interpreted, to see that they index nothing outside.
if config.DISABLE_JIT:  # type: ignore[attr-defined]
    look = _look_interpreted  # type: ignore[assignment]
    restore = _restore_interpreted  # type: ignore[assignment]


__all__ = ["FEATURES", "LANES", "RADIUS", "SEEN", "look", "restore"]
