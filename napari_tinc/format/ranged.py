"""A frame of which only parts are at hand: a file on a server, read range by range, or the beginning of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from napari_tinc.errors import FormatError
from napari_tinc.format.frame import head_size, read_head
from napari_tinc.format.header import Header
from napari_tinc.format.table import crc32c

# What is read at first: nearly all heads are shorter.
_FIRST = 2**12

Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class RangedSegment:
    """A part of a frame that is read when it is asked for, all of it or a range.

    Parameters
    ----------
    kind, item, level : int
        As of :class:`napari_tinc.format.table.Segment`.
    name : str
        For the text of errors.
    offset, length : int
        Where it is in the file.
    crc : int
        Checksum of all of it.
    held : int
        How many bytes of it are at hand.
    reader : callable
        Returns the bytes of the file from start to stop.
    """

    kind: int
    item: int
    level: int
    name: str
    offset: int
    length: int
    crc: int
    held: int
    reader: Read

    @property
    def order(self) -> tuple[int, int, int]:
        """Sort key, as of a whole segment."""
        return self.kind, self.level, self.item

    @cached_property
    def payload(self) -> bytes:
        """All of it, tested.

        Raises
        ------
        FormatError
            If it is damaged, or not all of it is at hand.
        """
        if self.held < self.length:
            raise FormatError(
                f"truncated: expected {self.length} bytes of {self.name}, got {self.held}; fetch it again"
            )
        payload = self.read(0, self.length)
        if crc32c(payload) != self.crc:
            raise FormatError(f"damaged segment ({self.name}): its checksum does not hold; get an undamaged copy")
        return payload

    def read(self, start: int, stop: int) -> bytes:
        """Return a range of it; its checksum, which is one of all bytes, is not tested."""
        return self.reader(self.offset + start, self.offset + stop)


def open_ranged(read: Read, size: int, partial: bool = False) -> tuple[Header, tuple[RangedSegment, ...], int]:
    """Read the head of a frame, and list its parts.

    Parameters
    ----------
    read : callable
    size : int
        Bytes at hand.
    partial : bool
        Whether these may be fewer than the frame has.

    Returns
    -------
    header, segments
    int
        Bytes of the whole frame.

    Raises
    ------
    FormatError
        If the head is not valid or not complete; or unless ``partial``, if the size is not that of the frame.
    """
    first = read(0, min(size, _FIRST))
    needed = head_size(first)
    if needed > len(first):
        first += read(len(first), min(needed, size))
    header, entries, offset = read_head(memoryview(first))
    whole = offset + sum(entry.length for entry in entries)
    if size > whole:
        raise FormatError(f"trailing bytes: expected {whole} bytes, got {size - whole} more; cut them off")
    if size < whole and not partial:
        raise FormatError(
            f"truncated: expected {whole} bytes, got {size}: {whole - size} are missing; fetch it again, "
            "or take what it holds with partial=True or --partial"
        )
    segments = []
    for entry in entries:
        held = min(max(0, size - offset), entry.length)
        place = (entry.kind, entry.item, entry.level, entry.name, offset, entry.length, entry.crc, held)
        segments.append(RangedSegment(*place, read))
        offset += entry.length
    return header, tuple(segments), whole


class RangedStreams(Sequence[bytes]):
    """Streams that follow one another in a segment, read when they are asked for; those not at hand are empty.

    Parameters
    ----------
    segment : RangedSegment
    start : int
        Where the first begins.
    lengths : sequence of int
    """

    # Bytes between two streams that are rather read, too, than asked for apart.
    _GAP = 2**13

    def __init__(self, segment: RangedSegment, start: int, lengths: Sequence[int]) -> None:
        self._segment, self.lengths = segment, tuple(lengths)
        self._starts, place = [], start
        for length in lengths:
            self._starts.append(place)
            place += length

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        """Return one stream, or several of a slice."""
        if isinstance(number, slice):
            return tuple(self.read(range(len(self))[number]))
        return self.read([range(len(self))[number]])[0]

    @property
    def held(self) -> int:
        """How many streams are at hand; they come in order."""
        pairs = zip(self._starts, self.lengths, strict=True)
        return sum(start + length <= self._segment.held for start, length in pairs)

    def read(self, numbers: Sequence[int]) -> list[bytes]:
        """Return streams, by as few reads as do not fetch much in vain."""
        found = dict.fromkeys(numbers, b"")
        run: list[int] = []
        for number in sorted(number for number in found if self.lengths[number] and self._is_held(number)):
            if run and self._starts[number] - self._end(run[-1]) > self._GAP:
                self._read_run(run, found)
                run = []
            run.append(number)
        self._read_run(run, found)
        return [found[number] for number in numbers]

    def _read_run(self, run: list[int], found: dict[int, bytes]) -> None:
        if not run:
            return
        first = self._starts[run[0]]
        data = self._segment.read(first, self._end(run[-1]))
        for number in run:
            found[number] = data[self._starts[number] - first : self._end(number) - first]

    def _is_held(self, number: int) -> bool:
        return self._end(number) <= self._segment.held

    def _end(self, number: int) -> int:
        return self._starts[number] + self.lengths[number]


__all__ = ["RangedSegment", "RangedStreams", "open_ranged"]
