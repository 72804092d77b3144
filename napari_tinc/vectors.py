"""What the coder of binary decisions learns for all inputs of a decision at once, spelt out as vectors for LLVM.

numba makes no vectors of loops as short as these; LLVM's own search for like operations would, but numba switches it
off, because it has had bugs. These run on any processor, one by one if need be. Integers throughout.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

INPUTS = 7
# Ends of probabilities and of weights, and how often at most a context is said to have been met.
_LEAST, _MOST, _SATURATED, _LARGEST_WEIGHT = 32, 65503, 250, 2**24

_INT, _LONG = ir.IntType(32), ir.IntType(64)
_INTS, _FLOATS = ir.VectorType(_INT, INPUTS), ir.VectorType(ir.FloatType(), INPUTS)
# What a context is thought to have been met before: 1.6 in float32.
_HEAD_START = float(np.float32(1.6))


@intrinsic
def mix(typing: Any, model: Any, stretch: Any) -> Any:
    """Look up what the contexts of a decision say, and add it up by the weights.

    What they say is kept in the record by one store: loads of all of it at once would wait for many to be through.

    Parameters
    ----------
    model : record
        See :mod:`napari_tinc.mixing`.
    stretch : ndarray of int16
        Logits in 256ths, by the first 12 bits of a probability.

    Returns
    -------
    int64
        In 65536ths of a logit's 256th.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        decision = _Decision(builder, model, arguments[0])
        table = context.make_array(stretch)(context, builder, arguments[1]).data
        logits = []
        for state in decision.states():
            entry = builder.load(builder.gep(table, [builder.zext(builder.lshr(builder.load(state), _INT(12)), _LONG)]))
            logits.append(builder.sext(entry, _INT))
        stretched = decision.together(logits)
        builder.store(stretched, decision.place("stretched", _LONG(0), _INTS), align=4)
        weights, total = builder.bitcast(decision.weights(), _INT.as_pointer()), _LONG(0)
        for i, logit in enumerate(logits):
            weight = builder.load(builder.gep(weights, [_LONG(i)]))
            total = builder.add(total, builder.mul(builder.sext(logit, _LONG), builder.sext(weight, _LONG)))
        return total

    return types.int64(model, stretch), generate


@intrinsic
def move(typing: Any, model: Any, bit: Any, error: Any) -> Any:
    """Move the weights of a decision along its error, and its probabilities towards the bit.

    The more often a context was met, the less: by one in 1.6 plus so many.

    Parameters
    ----------
    model : record
        See :mod:`napari_tinc.mixing`.
    bit, error : int64
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        record, bit, error = arguments
        decision = _Decision(builder, model, record)
        one = builder.trunc(bit, ir.IntType(1))

        def chosen(if_one: int, if_zero: int) -> Any:
            return decision.together([builder.select(one, _INT(if_one), _INT(if_zero))] * INPUTS)

        def between(values: Any, least: int, most: int) -> Any:
            values = builder.select(builder.icmp_signed("<", values, _all(least)), _all(least), values)
            return builder.select(builder.icmp_signed(">", values, _all(most)), _all(most), values)

        # weight += ⌊(stretched · error + 2**15) / 2**16⌋
        weights = decision.weights()
        stretched = builder.load(decision.place("stretched", _LONG(0), _INTS), align=4)
        step = builder.mul(stretched, decision.together([builder.trunc(error, _INT)] * INPUTS))
        step = builder.ashr(builder.add(step, _all(2**15)), _all(16))
        moved = between(builder.add(builder.load(weights, align=4), step), -_LARGEST_WEIGHT, _LARGEST_WEIGHT)

        # probability += ⌊(65535 · bit - probability) · rate / 2**16⌋, unsigned, for products take all 32 bits
        places = decision.states()
        states = decision.together(builder.load(state) for state in places)
        old, count = builder.lshr(states, _all(8)), builder.and_(states, _all(255))
        # ⌊65536 / (count + 1.6)⌋: of these counts float32 gives just that, and seven at once sooner than a table
        divisor = builder.fadd(builder.sitofp(count, _FLOATS), ir.Constant(_FLOATS, [_HEAD_START] * INPUTS))
        rate = builder.fptosi(builder.fdiv(ir.Constant(_FLOATS, [65536.0] * INPUTS), divisor), _INTS)
        distance = builder.mul(builder.xor(old, chosen(65535, 0)), rate)
        share = builder.lshr(builder.add(distance, chosen(0, 65535)), _all(16))
        signed = builder.sub(builder.xor(share, chosen(0, -1)), chosen(0, -1))
        new = between(builder.add(old, signed), _LEAST, _MOST)
        count = builder.add(count, builder.zext(builder.icmp_unsigned("<", count, _all(_SATURATED)), _INTS))

        builder.store(moved, weights, align=4)
        values = decision.apart(builder.or_(builder.shl(new, _all(8)), count))
        for state, value in zip(places, values, strict=True):
            builder.store(value, state)
        return context.get_dummy_value()

    return types.void(model, types.int64, types.int64), generate


class _Decision(NamedTuple):
    """What generates code about the decision at hand."""

    builder: Any
    model: Any
    record: Any

    def place(self, field: str, offset: Any, kind: Any) -> Any:
        start = self.builder.add(offset, _LONG(self.model.offset(field)))
        byte = self.builder.gep(self.builder.bitcast(self.record, ir.IntType(8).as_pointer()), [start])
        return self.builder.bitcast(byte, kind.as_pointer())

    def states(self) -> list[Any]:
        """Places of the states of its contexts."""
        contexts = [self.builder.load(self.place("contexts", _LONG(8 * i), _LONG)) for i in range(INPUTS)]
        return [self.place("states", self.builder.mul(number, _LONG(4)), _INT) for number in contexts]

    def weights(self) -> Any:
        """Place of its weights."""
        row = self.builder.load(self.place("row", _LONG(0), _LONG))
        return self.place("weights", self.builder.mul(row, _LONG(4 * INPUTS)), _INTS)

    def together(self, values: Iterable[Any]) -> Any:
        vector = ir.Constant(_INTS, ir.Undefined)
        for i, value in enumerate(values):
            vector = self.builder.insert_element(vector, value, _INT(i))
        return vector

    def apart(self, vector: Any) -> list[Any]:
        return [self.builder.extract_element(vector, _INT(i)) for i in range(INPUTS)]


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


def _mix_one_by_one(model: Any, stretch: Any) -> Any:
    total = np.int64(0)
    for i in range(INPUTS):
        model.stretched[i] = stretch[model.states[model.contexts[i]] >> 12]
        total += np.int64(model.stretched[i]) * np.int64(model.weights[model.row, i])
    return total


def _move_one_by_one(model: Any, bit: Any, error: Any) -> None:
    for i in range(INPUTS):
        weight = model.weights[model.row, i] + ((np.int64(model.stretched[i]) * error + 2**15) >> 16)
        model.weights[model.row, i] = max(-_LARGEST_WEIGHT, min(_LARGEST_WEIGHT, weight))
        state = np.int64(model.states[model.contexts[i]])
        old, count = state >> 8, state & 255
        new = old + ((65535 * bit - old) * int(65536 / (count + 1.6)) >> 16)
        model.states[model.contexts[i]] = max(_LEAST, min(_MOST, new)) << 8 | (count + (count < _SATURATED))


# Where kernels are interpreted, to see that they index nothing outside.
if config.DISABLE_JIT:  # type: ignore[attr-defined]
    mix = _mix_one_by_one  # type: ignore[assignment]
    move = _move_one_by_one  # type: ignore[assignment]
    leading_zeros = _leading_zeros_one_by_one  # type: ignore[assignment]


__all__ = ["INPUTS", "leading_zeros", "mix", "move"]
