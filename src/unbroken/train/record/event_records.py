"""The records of TensorBoard's event files, as bytes: points and pictures, where a session begins, a run's settings.

TensorBoard is imported inside the functions: that takes a sixth of a second, which the thread that writes has to
itself. Its records are checked by CRC-32C; a loop over their bytes was most of what curves cost a training. A checksum
of this kind is linear: it is the exclusive or of what each byte adds, given how many bytes follow it. From a table of
that numpy adds up a block of bytes at once, and those of many records of one length together.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unbroken.text import encodable

VERSION = "brain.Event:2"  # from version 2 on readers heed START events
PNG_START = b"\x89PNG\r\n\x1a\n"
COLOURS = 3
MASK = np.uint32(0xA282EAD8)

Point = tuple[int, Mapping[str, float | bytes], float]  # step, value or PNG by tag, wall time in seconds
POLYNOMIAL = np.uint32(0x82F63B78)  # Castagnoli's, reversed (RFC 3720, section 12.1)
ALL_ONES = np.uint32(0xFFFFFFFF)
BLOCK_BYTES = 256
Words = npt.NDArray[np.uint32]


def head(*, begun_s: float, restart: int | None) -> bytes:
    """How a session's file begins; `restart` is the first step of which nothing earlier is to be shown."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    events = [Event(wall_time=begun_s, file_version=VERSION)]
    if restart is not None:
        start = SessionLog(status=SessionLog.START)
        events += [Event(wall_time=begun_s, step=restart, session_log=start)] * 2
    return _records(events)


def points(given: Iterable[Point]) -> bytes:
    """Values of curves as 32-bit floats, and pictures."""
    from tensorboard.compat.proto.event_pb2 import Event

    events = []
    for step, values, wall_time_s in given:
        event = Event(wall_time=wall_time_s, step=step)
        for tag, value in values.items():
            if isinstance(value, bytes):
                width, height = png_size(value)
                shown = event.summary.value.add(tag=_text(tag)).image
                shown.width, shown.height, shown.colorspace = width, height, COLOURS
                shown.encoded_image_string = value
            else:
                event.summary.value.add(tag=_text(tag), simple_value=value)
        events.append(event)
    return _records(events)


def settings(hparams: Mapping[str, bool | float | str], *, group: str, begun_s: float, ended_s: float | None) -> bytes:
    """A whole file for the HParams plugin: what a run trains with, and when it was finished."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    begun = plugin_data_pb2.SessionStartInfo(group_name=_text(group), start_time_secs=begun_s)
    for name, value in hparams.items():
        match value:
            case bool():
                begun.hparams[_text(name)].bool_value = value
            case str():
                begun.hparams[_text(name)].string_value = _text(value)
            case _:
                begun.hparams[_text(name)].number_value = value
    told = {metadata.SESSION_START_INFO_TAG: plugin_data_pb2.HParamsPluginData(session_start_info=begun)}
    if ended_s is not None:
        ended = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=ended_s)
        told[metadata.SESSION_END_INFO_TAG] = plugin_data_pb2.HParamsPluginData(session_end_info=ended)
    event = Event(wall_time=begun_s)
    for tag, data in told.items():
        event.summary.value.add(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)
    return _records([Event(wall_time=begun_s, file_version=VERSION), event])


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height in px of a PNG; ValueError if it is none."""
    if not data.startswith(PNG_START) or len(data) < 24:
        raise ValueError("this is not a PNG file")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _text(named: str) -> str:
    """A name as these files can have it."""
    return encodable(named, "utf-8")


def _records(events: Iterable[Any]) -> bytes:
    """Each with its length and the checksums of both, as TFRecord files have them."""
    data = [event.SerializeToString() for event in events]
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, each in enumerate(data):
        by_length[len(each)].append(number)
    records = list(data)
    for length, numbers in by_length.items():
        header = struct.pack("<Q", length)
        (of_header,) = _checksums([header])
        for number, checksum in zip(numbers, _checksums([data[number] for number in numbers])):
            records[number] = b"".join((header, of_header, data[number], checksum))
    return b"".join(records)


def _checksums(data: Sequence[bytes]) -> list[bytes]:
    """Of some of one length: masked, for a file may hold files whose checksums it holds too."""
    checksums = crc32c(np.frombuffer(b"".join(data), np.uint8).reshape(len(data), len(data[0])))
    masked = ((checksums >> 15) | (checksums << 17)) + MASK
    return [each.tobytes() for each in masked.astype("<u4")]


def crc32c(rows_NB: npt.NDArray[np.uint8]) -> Words:
    """The checksum of each of N rows of B bytes."""
    state_N = np.full(len(rows_NB), ALL_ONES, "<u4")
    for begin in range(0, rows_NB.shape[1], BLOCK_BYTES):
        block = rows_NB[:, begin : begin + BLOCK_BYTES].copy()
        size = block.shape[1]
        block[:, :4] ^= state_N.view(np.uint8).reshape(-1, 4)[:, :size]
        left = state_N >> np.uint32(8 * size) if size < 4 else np.uint32(0)  # the state is longer than the block
        added_NB = _ADDED[np.arange(size - 1, -1, -1), block]
        state_N = (np.bitwise_xor.reduce(added_NB, axis=1) ^ left).astype("<u4")
    return state_N ^ ALL_ONES


def _added() -> Words:
    """What each value of a byte adds, by the number of bytes that follow it in its block."""
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, (row >> 1) ^ POLYNOMIAL, row >> 1).astype(np.uint32)
    rows = [row]
    for _ in range(BLOCK_BYTES - 1):
        rows.append(rows[0][rows[-1] & 0xFF] ^ (rows[-1] >> 8))
    return np.stack(rows)


_ADDED = _added()
