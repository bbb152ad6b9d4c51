"""The size that an image declares is compared with a limit before memory is taken for it."""

import os
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from cxrfast.data._codestreams import declared_size
from cxrfast.data._limits import MAX_PIXELS
from cxrfast.data.images import image_size, read_image
from cxrfast.errors import CxrfastError, UsageError

LARGE = 60_000  # a side; the square has 3.6 · 10⁹ pixels


def png(width, height, bits, colour_type, data=b""):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def dicom(syntax, pixels, rows=LARGE, columns=LARGE):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OB"
    return dataset


def tiff(width, height):
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, height)]
    entries.append((279, 4, 16))
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + struct.pack("<H", len(entries)) + body + bytes(4)


def bmp(width, height):
    return (
        b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)
    )


def jpeg(width, height):
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0" + frame + b"\xff\xd9"


def jpeg2000(width, height):
    sizes = struct.pack(">HHIIIIIIIIHBBB", 41, 0, width, height, 0, 0, width, height, 0, 0, 1, 7, 1, 1)
    return b"\xff\x4f\xff\x51" + sizes + b"\xff\xd9\0"


def encapsulated(frame):
    item = b"\xfe\xff\x00\xe0"
    return item + bytes(4) + item + struct.pack("<I", len(frame)) + frame + b"\xfe\xff\xdd\xe0" + bytes(4)


def large_files():
    yield "deep-colour.png", png(LARGE, LARGE, 16, 2)
    yield "grey.png", png(LARGE, LARGE, 8, 0)
    yield "impossible.png", png(2**31 - 1, 2**31 - 1, 16, 6)
    yield "grey.tif", tiff(LARGE, LARGE)
    yield "colour.bmp", bmp(LARGE, LARGE)
    yield "grey.jpg", jpeg(LARGE, LARGE)


def refused(path, problem, **options):
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(CxrfastError, match=problem) as caught:
            read_image(path, **options)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 10
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", [name for name, _ in large_files()])
def test_a_few_bytes_that_declare_billions_of_pixels(tmp_path, name):
    (tmp_path / name).write_bytes(dict(large_files())[name])
    refused(tmp_path / name, r"declares \d+×\d+ pixels, more than 100000000; if that is right, raise the limit")


@pytest.mark.parametrize(
    ("syntax", "pixels"),
    [
        (ExplicitVRLittleEndian, bytes(64)),
        (DeflatedExplicitVRLittleEndian, bytes(64)),
        (JPEGBaseline8Bit, encapsulated(jpeg(LARGE, LARGE))),
        (JPEG2000Lossless, encapsulated(jpeg2000(LARGE, LARGE))),
    ],
)
def test_dicom_that_declares_billions_of_pixels(tmp_path, syntax, pixels):
    dicom(syntax, pixels).save_as(tmp_path / "large.dcm", enforce_file_format=True)
    refused(tmp_path / "large.dcm", "declares 60000×60000 pixels, more than 100000000")


@pytest.mark.parametrize(
    ("syntax", "frame"), [(JPEGBaseline8Bit, jpeg(LARGE, LARGE)), (JPEG2000Lossless, jpeg2000(LARGE, 2**31))]
)
def test_a_compressed_frame_of_another_size_than_its_file_says(tmp_path, syntax, frame):
    dicom(syntax, encapsulated(frame), 64, 64).save_as(tmp_path / "large.dcm", enforce_file_format=True)
    refused(tmp_path / "large.dcm", r"declares 60000×\d+ pixels, more than 100000000")
    smaller = jpeg(32, 48) if syntax == JPEGBaseline8Bit else jpeg2000(32, 48)
    dicom(syntax, encapsulated(smaller), 64, 64).save_as(tmp_path / "other.dcm", enforce_file_format=True)
    refused(tmp_path / "other.dcm", "declares 64×64 pixels, but its compressed image has 32×48")


def test_a_deflated_bomb_is_not_unpacked(tmp_path):
    dicom(DeflatedExplicitVRLittleEndian, bytes(2**28), 64, 64).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert os.path.getsize(tmp_path / "a.dcm") < 2**19
    refused(tmp_path / "a.dcm", "unpacks to more than 67174400 bytes", max_pixels=64 * 64)


def test_sparse_and_endless_files(tmp_path):
    for name in ("a.png", "a.dcm", "a.jpg"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**42)
        refused(tmp_path / name, "it has 4398046511104 bytes")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "it is a named pipe, not a file")
    refused("/dev/zero", "it is a device, not a file")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    refused(tmp_path / "loop.png", "cannot be read")
    refused(tmp_path / ("x" * 300 + ".png"), "too long")
    (tmp_path / "folder.png").mkdir()
    refused(tmp_path / "folder.png", "is a folder")
    for path in (tmp_path / "pipe.png", tmp_path / "loop.png", tmp_path / "folder.png"):
        with pytest.raises(CxrfastError, match="header of the image cannot be read"):
            image_size(path)


def test_the_limit_is_an_option(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(path)
    assert read_image(path, max_pixels=600).shape == (20, 30)
    with pytest.raises(CxrfastError, match="declares 30×20 pixels, more than 599"):
        read_image(path, max_pixels=599)
    monkeypatch.setenv("CXRFAST_MAX_PIXELS", "599")
    with pytest.raises(CxrfastError, match="more than 599"):
        read_image(path)
    monkeypatch.setenv("CXRFAST_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="CXRFAST_MAX_PIXELS: expected a number of pixels, got 'many'"):
        read_image(path)
    with pytest.raises(UsageError, match="max_pixels: expected 1 or more, got 0"):
        read_image(path, max_pixels=0)


def test_the_largest_radiographs_are_read_without_a_warning(tmp_path):
    side = int(MAX_PIXELS**0.5)
    assert side * side == MAX_PIXELS
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((side, side), np.uint8)).save(path)  # Pillow's own limit warns from 89 million on
    assert read_image(path).shape == (side, side)


def test_sizes_of_frames():
    assert declared_size(encapsulated(jpeg(300, 200))) == (300, 200)
    assert declared_size(encapsulated(jpeg2000(300, 200))) == (300, 200)
    assert declared_size(jpeg(300, 200)) is None  # not encapsulated
    for whole in (encapsulated(jpeg(300, 200)), encapsulated(jpeg2000(300, 200))):
        for end in range(len(whole)):
            assert declared_size(whole[:end]) in (None, (300, 200))
