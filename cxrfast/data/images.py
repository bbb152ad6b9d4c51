"""Read image files as greyscale arrays in [0, 1]. A damaged file is an error, never a partly black image."""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from cxrfast._files import open_regular, read_bytes, reason
from cxrfast.data._grey import to_grey
from cxrfast.data._limits import bytes_of, largest_image, require_size
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


def read_image(path: str | os.PathLike, *, max_pixels: int | None = None) -> np.ndarray:
    """The image at ``path`` as greyscale float32 ``[H, W]`` in [0, 1].

    Reads DICOM (see :func:`read_dicom`), and PNG, JPEG, BMP and TIFF with 8 or 16 bits in greyscale, colour or palette
    mode. Values are divided by the maximum of their format (255 or 65535), not by the maximum of the image. Colours are
    converted to luma; transparent pixels are composited over black.

    An EXIF orientation is applied. Files with several pages are rejected, like DICOM files with several frames.

    The size that a file declares is compared with ``max_pixels`` (default: the environment variable
    ``CXRFAST_MAX_PIXELS``, else 100 million) before memory is taken for its pixels.

    Raises :class:`CxrfastError` for a file that is missing, empty, truncated, damaged, too large or not an image.
    """
    return read_image_file(path, max_pixels=max_pixels).pixels


def read_image_file(path: str | os.PathLike, *, max_pixels: int | None = None) -> ImageFile:
    """:func:`read_image`, with notes on what had to be assumed to show the image."""
    path, most = Path(path), largest_image(max_pixels)
    data = _read_bytes(path, most)
    try:
        if _is_dicom(path, data):
            from cxrfast.data.dicom import decode_dicom

            return ImageFile(*decode_dicom(data, path, most))
        return ImageFile(_decode(data, path, most))
    except MemoryError as error:
        raise CxrfastError(f"{path} needs more memory than there is; lower max_pixels, or export it smaller") from error


def _is_dicom(path: Path, head: bytes) -> bool:
    return path.suffix.lower() in DICOM_SUFFIXES or head[128:132] == b"DICM" or head[:2] == _FIRST_GROUP


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Width and height of an image file in pixels, from its header alone.

    Raises :class:`CxrfastError` for a file that is missing or whose header cannot be read.
    """
    path = Path(path)
    try:
        with open_regular(path, "rb") as file:
            head = file.read(132)
        if not head:
            raise CxrfastError(f"{path} is an empty file; copy or download it again")
        if _is_dicom(path, head):
            from cxrfast.data.dicom import dicom_size

            return dicom_size(path)
        found = _png_size(path) if head.startswith(_PNG_SIGNATURE) else None
        if found is not None:
            return found
        from PIL.TiffImagePlugin import TiffImageFile

        with open_regular(path, "rb") as file, _open_image(file) as image:
            require_size(image.width, image.height, largest_image(), path)  # to find an orientation may decode it
            turned = image.getexif().get(274, 1) in (5, 6, 7, 8)  # the EXIF orientation exchanges width and height
            width, height = image.size
            if isinstance(image, TiffImageFile):  # some versions of Pillow have exchanged these already
                width, height = image.tag_v2[256], image.tag_v2[257]
            return (height, width) if turned else (width, height)
    except CxrfastError:
        raise
    except Exception as error:
        raise CxrfastError(f"{path}: the header of the image cannot be read ({reason(error)})") from error


def _png_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG whose chunks are all there; None if one of them may hold an orientation.

    Pillow decodes a whole PNG to look for an orientation, because that chunk may follow the pixels.
    """
    with open_regular(path, "rb") as file:
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


def _read_bytes(path: Path, most: int) -> bytes:
    try:
        data = read_bytes(path, bytes_of(most))
    except IsADirectoryError:
        raise CxrfastError(f"{path} is a folder; pass an image file") from None
    except FileNotFoundError:
        raise CxrfastError(f"no image file {path}; check the path") from None
    except PermissionError as error:
        raise CxrfastError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except OSError as error:
        raise CxrfastError(f"{path} cannot be read ({reason(error)}); pass an image file") from error
    if not data:
        raise CxrfastError(f"{path} is an empty file; copy or download it again")
    return data


@contextmanager
def _open_image(file: IO[bytes]) -> Iterator[Any]:
    """Pillow's image of a file, not yet decoded. The caller compares its size with the limit, not Pillow."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of size, and of metadata that nothing here depends on
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(file, formats=_FORMATS) as image:
                yield image
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode(data: bytes, path: Path, most: int) -> np.ndarray:
    from PIL import ImageOps, UnidentifiedImageError

    if data.startswith(_PNG_SIGNATURE):
        width, height, bits, colour_type = _check_png(data, path)
        require_size(width, height, most, path)
        if bits == 16 and colour_type != 0:
            return _upright(_decode_deep_colour(data, path), data)
    try:
        with _open_image(io.BytesIO(data)) as file:
            require_size(file.width, file.height, most, path)
            pages = getattr(file, "n_frames", 1)
            if pages > 1:
                raise CxrfastError(f"{path} holds {pages} pages, expected one; save the page you want as its own file")
            file.load()
            image = ImageOps.exif_transpose(file)
            grey = _to_grey(image)
    except UnidentifiedImageError:
        raise CxrfastError(f"{path} is not an image of a known format ({', '.join(_FORMATS)}, DICOM)") from None
    except (CxrfastError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds for damaged files
        raise CxrfastError(f"{path} is damaged or truncated ({reason(error)}); copy or download it again") from error
    if grey is None:
        raise CxrfastError(f"{path} has pixels of mode {image.mode}; convert it to an 8- or 16-bit grey PNG")
    return np.ascontiguousarray(grey, dtype=np.float32)


def _check_png(data: bytes, path: Path) -> tuple[int, int, int, int]:
    """(width, height, bits per channel, colour type) of a PNG, after checking that all chunks are there and undamaged.

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
    return width, height, bits, colour_type


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
    with _open_image(io.BytesIO(data)) as file:
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
    except Exception:  # OpenCV's own errors, and those of numpy for a size that it refuses
        pixels = None
    if pixels is None or pixels.dtype != np.uint16:
        raise CxrfastError(f"{path} is damaged: its pixels cannot be decoded; copy or download it again")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:  # OpenCV's order is BGR(A)
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return np.ascontiguousarray(to_grey(pixels.astype(np.float32) / 65535))
