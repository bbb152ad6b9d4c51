"""The size that a compressed frame of a DICOM file declares by itself, found without decoding it."""

import struct

_ITEM = b"\xfe\xff\x00\xe0"
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}  # SOF markers, and that of JPEG-LS


def declared_size(pixel_data: bytes) -> tuple[int, int] | None:
    """Width and height of the first JPEG, JPEG-LS or JPEG 2000 frame in encapsulated pixel data; None for others."""
    if not pixel_data.startswith(_ITEM):
        return None
    starts = [pixel_data.find(mark, 0, 2**20) for mark in (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")]
    start = min((start for start in starts if start >= 0), default=None)
    if start is None:
        return None
    frame = memoryview(pixel_data)[start:]
    return _jpeg_size(frame) if frame[1] == 0xD8 else _jpeg2000_size(frame)


def _jpeg2000_size(frame: memoryview) -> tuple[int, int] | None:
    if len(frame) < 24:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, 8)
    return max(right - left, 0), max(bottom - top, 0)


def _jpeg_size(frame: memoryview) -> tuple[int, int] | None:
    """From the frame header, behind segments that each say how long they are."""
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        if frame[place + 1] == 0xFF:  # fill bytes
            place += 1
        elif frame[place + 1] in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", frame, place + 5)
            return width, height
        else:
            place += 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return None
