"""Read image files as greyscale arrays in [0, 1]. A damaged file is an error, never a partly black image."""

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxrfast.data._grey import to_grey
from cxrfast.errors import CxrfastError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FIRST_GROUP = b"\x08\x00"  # how a DICOM file without a preamble begins
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", *DICOM_SUFFIXES)


class ImageFile(NamedTuple):
    """The grey image of a file, and what had to be assumed to show it."""

    pixels: np.ndarray  # [H, W] float32 in [0, 1]
    notes: tuple[str, ...] = ()


def read_image(path: str | os.PathLike) -> np.ndarray:
    """The image at ``path`` as greyscale float32 ``[H, W]`` in [0, 1].

    Reads DICOM (see :func:`read_dicom`), and PNG, JPEG, BMP and TIFF with 8 or 16 bits in greyscale, colour or palette
    mode. Values are divided by the maximum of their format (255 or 65535), not by the maximum of the image. Colours are
    converted to luma; transparent pixels are composited over black.

    An EXIF orientation is applied. Files with several pages are rejected, like DICOM files with several frames.

    Raises :class:`CxrfastError` for a file that is missing, empty, truncated, damaged or not an image.
    """
    return read_image_file(path).pixels


def read_image_file(path: str | os.PathLike) -> ImageFile:
    """:func:`read_image`, with notes on what had to be assumed to show the image."""
    path = Path(path)
    data = _read_bytes(path)
    if path.suffix.lower() in (".dcm", ".dicom") or data[128:132] == b"DICM" or data[:2] == _FIRST_GROUP:
        from cxrfast.data.dicom import read_dicom_image

        return ImageFile(*read_dicom_image(path))
    return ImageFile(_decode(data, path))


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Width and height of an image file in pixels, from its header alone.

    Raises :class:`CxrfastError` for a file that is missing or whose header cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(132)
        if not head:
            raise CxrfastError(f"{path} is an empty file; copy or download it again")
        if path.suffix.lower() in DICOM_SUFFIXES or head[128:] == b"DICM" or head[:2] == _FIRST_GROUP:
            from cxrfast.data.dicom import dicom_size

            return dicom_size(path)
        found = _png_size(path) if head.startswith(_PNG_SIGNATURE) else None
        if found is not None:
            return found
        from PIL import Image
        from PIL.TiffImagePlugin import TiffImageFile

        with Image.open(path, formats=_FORMATS) as image:
            turned = image.getexif().get(274, 1) in (5, 6, 7, 8)  # the EXIF orientation exchanges width and height
            width, height = image.size
            if isinstance(image, TiffImageFile):  # some versions of Pillow have exchanged these already
                width, height = image.tag_v2[256], image.tag_v2[257]
            return (height, width) if turned else (width, height)
    except CxrfastError:
        raise
    except Exception as error:
        raise CxrfastError(f"{path}: the header of the image cannot be read ({error})") from error


def _png_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG whose chunks are all there; None if one of them may hold an orientation.

    Pillow decodes a whole PNG to look for an orientation, because that chunk may follow the pixels.
    """
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        at, kind, size, turned = file.seek(len(_PNG_SIGNATURE)), b"", (0, 0), False
        while kind != b"IEND":
            length, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\xff"))
            if at + 12 + length > end:
                raise ValueError(f"truncated PNG of {end} bytes")
            if not any(size):
                if kind != b"IHDR" or length < 8:
                    raise ValueError("no PNG header")
                size = struct.unpack(">II", file.read(8))
                if 0 in size:
                    raise ValueError(f"no pixels, size {size[0]}×{size[1]}")
            if kind in (b"tEXt", b"zTXt", b"iTXt"):
                turned = turned or file.read(16).startswith((b"Raw profile", b"XML:com"))
            turned = turned or kind == b"eXIf"
            at = file.seek(at + 12 + length)
    return None if turned else size


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise CxrfastError(f"{path} is a folder; pass an image file")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CxrfastError(f"no image file {path}; check the path") from None
    except OSError as error:
        raise CxrfastError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    if not data:
        raise CxrfastError(f"{path} is an empty file; copy or download it again")
    return data


def _decode(data: bytes, path: Path) -> np.ndarray:
    import io

    from PIL import Image, ImageOps, UnidentifiedImageError

    if data.startswith(_PNG_SIGNATURE):
        bits, colour_type = _check_png(data, path)
        if bits == 16 and colour_type != 0:
            return _upright(_decode_deep_colour(data, path), data)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as file:
            pages = getattr(file, "n_frames", 1)
            if pages > 1:
                raise CxrfastError(f"{path} holds {pages} pages, expected one; save the page you want as its own file")
            file.load()
            image = ImageOps.exif_transpose(file)
            grey = _to_grey(image)
    except UnidentifiedImageError:
        raise CxrfastError(f"{path} is not an image of a known format ({', '.join(_FORMATS)}, DICOM)") from None
    # Pillow's decoders raise all of these for damaged files
    except (OSError, SyntaxError, ValueError, struct.error, IndexError, Image.DecompressionBombError) as error:
        raise CxrfastError(f"{path} is damaged or truncated ({error}); copy or download it again") from error
    if grey is None:
        raise CxrfastError(f"{path} has pixels of mode {image.mode}; convert it to an 8- or 16-bit grey PNG")
    if grey.size == 0:
        raise CxrfastError(f"{path} has no pixels (size {image.size[0]}×{image.size[1]}); export it again")
    return np.ascontiguousarray(grey, dtype=np.float32)


def _check_png(data: bytes, path: Path) -> tuple[int, int]:
    """(bits per channel, colour type) of a PNG, after checking that all chunks are present with correct checksums.

    Decoders differ in the damage that they tolerate (OpenCV fills the rest of a truncated image with black).
    """
    position, kind, header = len(_PNG_SIGNATURE), b"", b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise CxrfastError(f"{path} is a truncated PNG (ends after {len(data)} bytes); copy or download it again")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise CxrfastError(f"{path} is a truncated PNG (ends after {len(data)} bytes); copy or download it again")
        if zlib.crc32(memoryview(data)[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise CxrfastError(f"{path} is a damaged PNG (checksum at byte {position}); copy or download it again")
        if not header:
            header = data[position + 8 : end]
            if kind != b"IHDR" or length != 13:
                raise CxrfastError(f"{path} is a damaged PNG (no header); copy or download it again")
        position = end + 4
    width, height, bits, colour_type = struct.unpack_from(">IIBB", header)
    if width == 0 or height == 0:
        raise CxrfastError(f"{path} has no pixels (size {width}×{height}); export it again")
    return bits, colour_type


def _to_grey(image) -> np.ndarray | None:
    """Greyscale float32 in [0, 1] of a Pillow image, or None for modes without a known maximum value."""
    mode = image.mode
    if mode == "P" or (mode in ("L", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA")
    elif mode in ("CMYK", "YCbCr"):
        image = image.convert("RGB")
    elif mode == "1":
        image = image.convert("L")
    pixels = np.asarray(image)
    if pixels.dtype == np.uint8:
        return to_grey(pixels.astype(np.float32) / 255)
    if image.mode.startswith("I;16"):
        return pixels.astype(np.float32) / 65535
    return None


def _upright(pixels: np.ndarray, data: bytes) -> np.ndarray:
    """Apply the EXIF orientation of an image file to its decoded pixels ``[H, W]``."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(data), formats=_FORMATS) as file:
        orientation = file.getexif().get(0x0112, 1)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.T
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode_deep_colour(data: bytes, path: Path) -> np.ndarray:
    """A 16-bit PNG with colour or alpha, which Pillow would reduce to 8 bits."""
    import cv2

    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype != np.uint16:
        raise CxrfastError(f"{path} is damaged: its pixels cannot be decoded; copy or download it again")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:  # OpenCV's order is BGR(A)
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return np.ascontiguousarray(to_grey(pixels.astype(np.float32) / 65535))
