"""What the coder of binary decisions learns for all inputs of a decision at once, spelt out as vectors for LLVM.

numba makes no vectors of loops as short as these; LLVM's own search for like operations would, but numba switches it
off, because it has had bugs. These run on any processor, one by one if need be. Integers throughout.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

INPUTS = 7
# Ends of probabilities and of weights, and how often at most a context is said to have been met.
_LEAST, _MOST, SATURATED, _LARGEST_WEIGHT = 32, 65503, 250, 2**24

_INT, _LONG = ir.IntType(32), ir.IntType(64)
_INTS = ir.VectorType(_INT, INPUTS)


@intrinsic
def move(typing: Any, model: Any, bit: Any, error: Any, rates: Any) -> Any:
    """Move the weights of a decision along its error, and its probabilities towards the bit by their rates.

    Parameters
    ----------
    model : record
        See :mod:`napari_tinc.mixing`.
    bit, error : int64
    rates : ndarray of int32
        In 65536ths, by how often a context was met.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        record, bit, error, array = arguments
        table = context.make_array(rates)(context, builder, array).data
        one = builder.trunc(bit, ir.IntType(1))

        def place(field: str, offset: Any, kind: Any) -> Any:
            start = builder.add(offset, _LONG(model.offset(field)))
            byte = builder.gep(builder.bitcast(record, ir.IntType(8).as_pointer()), [start])
            return builder.bitcast(byte, kind.as_pointer())

        def together(values: Iterable[Any]) -> Any:
            vector = ir.Constant(_INTS, ir.Undefined)
            for i, value in enumerate(values):
                vector = builder.insert_element(vector, value, _INT(i))
            return vector

        def apart(vector: Any) -> list[Any]:
            return [builder.extract_element(vector, _INT(i)) for i in range(INPUTS)]

        def chosen(if_one: int, if_zero: int) -> Any:
            return together([builder.select(one, _INT(if_one), _INT(if_zero))] * INPUTS)

        def between(values: Any, least: int, most: int) -> Any:
            values = builder.select(builder.icmp_signed("<", values, _all(least)), _all(least), values)
            return builder.select(builder.icmp_signed(">", values, _all(most)), _all(most), values)

        # weight += ⌊(stretched · error + 2**15) / 2**16⌋
        row = builder.load(place("row", _LONG(0), _LONG))
        weights = place("weights", builder.mul(row, _LONG(4 * INPUTS)), _INTS)
        stretched = builder.load(place("stretched", _LONG(0), _INTS), align=4)
        step = builder.mul(stretched, together([builder.trunc(error, _INT)] * INPUTS))
        step = builder.ashr(builder.add(step, _all(2**15)), _all(16))
        moved = between(builder.add(builder.load(weights, align=4), step), -_LARGEST_WEIGHT, _LARGEST_WEIGHT)

        # probability += ⌊(65535 · bit - probability) · rate / 2**16⌋, unsigned, for products take all 32 bits
        contexts = [builder.load(place("contexts", _LONG(8 * i), _LONG)) for i in range(INPUTS)]
        places = [place("states", builder.mul(number, _LONG(4)), _INT) for number in contexts]
        states = together(builder.load(state) for state in places)
        old, count = builder.lshr(states, _all(8)), builder.and_(states, _all(255))
        rate = together(builder.load(builder.gep(table, [builder.zext(n, _LONG)])) for n in apart(count))
        distance = builder.mul(builder.xor(old, chosen(65535, 0)), rate)
        share = builder.lshr(builder.add(distance, chosen(0, 65535)), _all(16))
        signed = builder.sub(builder.xor(share, chosen(0, -1)), chosen(0, -1))
        new = between(builder.add(old, signed), _LEAST, _MOST)
        count = builder.add(count, builder.zext(builder.icmp_unsigned("<", count, _all(SATURATED)), _INTS))

        builder.store(moved, weights, align=4)
        for state, value in zip(places, apart(builder.or_(builder.shl(new, _all(8)), count)), strict=True):
            builder.store(value, state)
        return context.get_dummy_value()

    return types.void(model, types.int64, types.int64, rates), generate


@intrinsic
def leading_zeros(typing: Any, number: Any) -> Any:
    """Count the zeros before the first one of an int64; 64 of 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.IntType(1)(0))

    return types.int64(types.int64), generate


def _leading_zeros_one_by_one(number: Any) -> Any:
    return np.int64(64 - int(number).bit_length())


def _all(number: int) -> Any:
    return _INTS([number] * INPUTS)


def _move_one_by_one(model: Any, bit: Any, error: Any, rates: Any) -> None:
    for i in range(INPUTS):
        weight = model.weights[model.row, i] + ((np.int64(model.stretched[i]) * error + 2**15) >> 16)
        model.weights[model.row, i] = max(-_LARGEST_WEIGHT, min(_LARGEST_WEIGHT, weight))
        state = np.int64(model.states[model.contexts[i]])
        old, count = state >> 8, state & 255
        new = old + ((65535 * bit - old) * np.int64(rates[count]) >> 16)
        model.states[model.contexts[i]] = max(_LEAST, min(_MOST, new)) << 8 | (count + (count < SATURATED))


# Where kernels are interpreted, to see that they index nothing outside.
if config.DISABLE_JIT:  # type: ignore[attr-defined]
    move = _move_one_by_one  # type: ignore[assignment]
    leading_zeros = _leading_zeros_one_by_one  # type: ignore[assignment]


__all__ = ["INPUTS", "SATURATED", "leading_zeros", "move"]
