"""DICOM files to grey arrays in [0, 1], as a viewer would first show them.

The steps are those of DICOM PS3.3 C.7.6.3 and C.11: stored values, modality transform, VOI transform, presentation.
These rules apply to files that violate the standard:

- A look-up table is scaled by its own smallest and largest entry, not by the number of bits that it declares: readers
  declare 16 bits for tables that end at 4095. Values below or above its range take its first or last entry.
- Without a window and without a VOI table the range is that of the stored bits, unless the image uses less than a
  quarter of it: then the range is the smallest number of whole bits that can represent the largest value (see
  :class:`DicomImage`, ``notes``).
- Pixels of the padding value or range lie outside the detector. They are shown as black, and are ignored when a range
  is computed.
- The image is inverted if it is MONOCHROME1 or if PresentationLUTShape is INVERSE; both together invert it once.
"""

import io
import os
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cxrfast._files import open_regular, read_bytes, reason
from cxrfast.data._codestreams import declared_size
from cxrfast.data._grey import to_grey
from cxrfast.data._limits import bytes_of, largest_image, require_size
from cxrfast.errors import CxrfastError


class DicomImage(NamedTuple):
    """The presented image, and what had to be assumed about it."""

    pixels: np.ndarray  # [H, W] float32 in [0, 1], air black
    notes: tuple[str, ...]


def read_dicom(path: str | os.PathLike, *, max_pixels: int | None = None) -> np.ndarray:
    """The image of a single-frame DICOM file as greyscale float32 ``[H, W]`` in [0, 1], with air black.

    Modality table or rescale, then the first VOI window (or VOI table) if the file has one, else the stored range;
    padding is black; MONOCHROME1 and PresentationLUTShape INVERSE are inverted. The module's docstring has the rules
    for files that break the standard. A file without the 128 bytes and "DICM" at its start is read if it has the
    elements of an image.

    ``max_pixels`` is as for :func:`cxrfast.data.images.read_image`; a deflated file is also not unpacked beyond it.

    Raises :class:`CxrfastError` for files that are missing or damaged, without an image, or with several frames.
    """
    return read_dicom_image(path, max_pixels=max_pixels).pixels


def read_dicom_image(path: str | os.PathLike, *, max_pixels: int | None = None) -> DicomImage:
    """:func:`read_dicom`, with notes on what had to be assumed."""
    path, most = Path(path), largest_image(max_pixels)
    try:
        data = read_bytes(path, bytes_of(most))
    except FileNotFoundError:
        raise CxrfastError(f"no DICOM file {path}; check the path") from None
    except OSError as error:
        raise CxrfastError(f"{path} cannot be read ({reason(error)}); pass a DICOM file") from error
    return decode_dicom(data, path, most)


def decode_dicom(data: bytes, path: Path, most: int) -> DicomImage:
    """The image in the bytes of a file of at most ``most`` pixels; ``path`` is named in errors."""
    # Many devices violate the standard in harmless ways, which pydicom reports as warnings. Relevant problems raise.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = _read(data, path, most)
            _require_single_image(dataset, path)
            _require_possible_size(dataset, path, most)
            grey, notes = _present(dataset, dataset.pixel_array)
        except (CxrfastError, MemoryError):
            raise
        except Exception as error:  # pydicom and its decoders raise whatever they stumble over, also at first access
            raise _damaged(path, error) from error
    return DicomImage(np.ascontiguousarray(grey, dtype=np.float32), notes)


def holds_image(path: str | os.PathLike) -> bool:
    """Whether a DICOM file has the elements of an image: directories, presentation states and reports do not.

    True for a file that cannot be read, so that the attempt to read it reports the reason.
    """
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open_regular(path, "rb") as file:
                _require_plain_size(file, Path(path), largest_image())
                file.seek(0)
                dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows", "SOPClassUID"])
        except Exception:
            return True
    kind = dataset.get("SOPClassUID") or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID")
    return "Rows" in dataset or kind is None


def _read(data: bytes, path: Path, most: int) -> Any:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        try:
            _require_plain_size(io.BytesIO(data), path, most)
            return pydicom.dcmread(io.BytesIO(data))
        except InvalidDicomError:  # no preamble
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    except CxrfastError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error
    if "SOPClassUID" not in dataset or "Rows" not in dataset:
        raise CxrfastError(f"{path} is not a DICOM file; pass a DICOM file or a PNG")
    if "TransferSyntaxUID" not in dataset.file_meta:
        from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

        implicit, _ = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset


def _require_plain_size(file: Any, path: Path, most: int) -> None:
    """:class:`CxrfastError` for a deflated file that unpacks to more than an image of ``most`` pixels can need.

    pydicom unpacks such a file whole before it looks at anything in it.
    """
    from pydicom.filereader import read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if not read_preamble(file, force=False):
        return
    meta = _file_meta(file)
    if str(meta.get("TransferSyntaxUID", "")) != DeflatedExplicitVRLittleEndian:
        return
    limit, done = bytes_of(most), 0
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    while chunk := unpacker.unconsumed_tail or file.read(2**20):
        done += len(unpacker.decompress(chunk, 2**20))
        if done > limit:
            raise CxrfastError(f"{path} unpacks to more than {limit} bytes; export it uncompressed")


def _file_meta(file: Any) -> Any:
    from pydicom.filereader import _read_file_meta_info  # leaves the file at the end of the header

    return _read_file_meta_info(file)


def _require_possible_size(dataset: Any, path: Path, most: int) -> None:
    """:class:`CxrfastError` unless the declared size is within the limit, and that of a compressed frame the same."""
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

    try:
        width, height = int(dataset.Columns), int(dataset.Rows)
        samples = int(dataset.get("SamplesPerPixel", 1))
        bits = int(dataset.get("BitsAllocated", 16))
    except Exception as error:
        raise _damaged(path, error) from error
    require_size(width, height, most, path)
    if not (1 <= samples <= 4 and 1 <= bits <= 64):
        raise CxrfastError(f"{path} has {samples} samples of {bits} bits a pixel; export it again as a radiograph")
    syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    found = (
        declared_size(bytes(dataset.PixelData or b""))
        if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
        else None
    )
    if found is not None and found != (width, height):
        require_size(*found, most, path)
        raise CxrfastError(
            f"{path} declares {width}×{height} pixels, but its compressed image has {found[0]}×{found[1]}; export it "
            "again"
        )


def dicom_size(path: Path) -> tuple[int, int]:
    """Width and height of a DICOM image, from its header alone."""
    import pydicom

    try:
        with open_regular(path, "rb") as file:
            with suppress(pydicom.errors.InvalidDicomError):  # no preamble
                _require_plain_size(file, path, largest_image())
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=["Rows", "Columns"])
        return int(header.Columns), int(header.Rows)
    except CxrfastError:
        raise
    except Exception as error:  # pydicom raises many kinds for a damaged file
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CxrfastError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CxrfastError(f"{path} cannot be decoded ({reason}); export it again, uncompressed or as PNG")


def _require_single_image(dataset: Any, path: Path) -> None:
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = getattr(dataset.get("SOPClassUID"), "name", "unknown kind")
        raise CxrfastError(f"{path} holds no image ({kind}); pass a radiograph")
    if "PixelData" not in dataset:
        raise CxrfastError(f"{path} holds floating-point pixels; export it as a radiograph or as PNG")
    frames = _frames(dataset, path)
    if frames != 1:
        raise CxrfastError(f"{path} holds {frames} frames, expected one; export the frame you want as its own file")
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if not kind.startswith(("MONOCHROME", "RGB", "YBR")):
        raise CxrfastError(f"{path} has photometric interpretation {kind or 'missing'!r}; export it as PNG")


def _frames(dataset: Any, path: Path) -> int:
    """NumberOfFrames; a blank one is one."""
    try:
        value = dataset.get("NumberOfFrames")
        if value is None or str(value).strip() == "":
            if "NumberOfFrames" in dataset:
                del dataset.NumberOfFrames  # pydicom's decoders would stumble over it
            return 1
        return int(str(value).strip())
    except Exception as error:
        raise CxrfastError(f"{path} has a NumberOfFrames that is no number; export it again") from error


def _present(dataset: Any, stored: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Stored values [H, W] or [H, W, 3] -> presented values in [0, 1], [H, W]; notes."""
    bits = int(dataset.BitsStored)
    if stored.ndim == 3:
        return to_grey(stored.astype(np.float32) / (2**bits - 1)), ()
    notes: tuple[str, ...] = ()
    padding = _padding(dataset, stored)
    values, low, high = _modality(dataset, stored, bits)
    window = _window(dataset)
    if window is not None:
        grey = apply_window(values, *window)
    elif dataset.get("VOILUTSequence"):
        grey = _look_up(dataset.VOILUTSequence[0], values, signed=bool(low < 0))
    else:
        if not dataset.get("ModalityLUTSequence"):
            low, high, notes = _used_range(dataset, stored, padding, bits)
        grey = (values - low) / (high - low)
    grey = np.clip(grey, 0.0, 1.0)
    if not np.isfinite(grey).all():
        raise ValueError("the transform of its values is not finite")
    # Not pydicom's apply_presentation_lut: it inverts about the largest value of the image, not about white.
    inverse = str(dataset.get("PresentationLUTShape") or "").upper() == "INVERSE"
    if dataset.PhotometricInterpretation == "MONOCHROME1" or inverse:
        grey = 1.0 - grey
    if padding is not None:
        grey = np.where(padding, 0.0, grey)
    return grey, notes


def _padding(dataset: Any, stored: np.ndarray) -> np.ndarray | None:
    """[H, W] bool: pixels outside the detector; None where the file declares none or the whole image would be."""
    first = _first(dataset.get("PixelPaddingValue"))
    if first is None:
        return None
    last = _first(dataset.get("PixelPaddingRangeLimit"))
    ends = [_as_stored(end, dataset) for end in (first, first if last is None else last)]
    padded = (stored >= min(ends)) & (stored <= max(ends))
    return padded if padded.any() and not padded.all() else None


def _as_stored(value: float, dataset: Any) -> float:
    """A padding value with the signedness of the pixels, even if it was written with the other one."""
    bits = int(dataset.BitsAllocated)
    if dataset.PixelRepresentation and value >= 2 ** (bits - 1):
        return value - 2**bits
    return value + 2**bits if not dataset.PixelRepresentation and value < 0 else value


def _modality(dataset: Any, stored: np.ndarray, bits: int) -> tuple[np.ndarray, float, float]:
    """Modality transform, and its values at the ends of the stored range."""
    if dataset.get("ModalityLUTSequence"):
        table = _look_up(dataset.ModalityLUTSequence[0], stored, signed=bool(dataset.PixelRepresentation), scaled=False)
        entries = _entries(dataset.ModalityLUTSequence[0])
        return table, float(entries.min()), float(max(entries.max(), entries.min() + 1))
    slope, intercept = _rescale(dataset)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return stored * slope + intercept, ends[0], ends[1]


def _rescale(dataset: Any) -> tuple[float, float]:
    slope, intercept = _first(dataset.get("RescaleSlope")), _first(dataset.get("RescaleIntercept"))
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise ValueError(f"RescaleSlope is {slope:g} and RescaleIntercept {intercept:g}")
    return slope, intercept


def _used_range(
    dataset: Any, stored: np.ndarray, padding: np.ndarray | None, bits: int
) -> tuple[float, float, tuple[str, ...]]:
    """The range of modality values without a window: that of the stored bits, or of those that are used."""
    slope, intercept = _rescale(dataset)
    notes: tuple[str, ...] = ()
    if dataset.PixelRepresentation:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    else:
        low, high = 0, 2**bits - 1
        largest = int((stored if padding is None else stored[~padding]).max())
        if 0 < largest < 2 ** (bits - 2):
            high = 2 ** largest.bit_length() - 1
            notes = (f"no window, and of {bits} stored bits values use up to {largest}: {high} is shown as white",)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return ends[0], ends[1], notes


def _look_up(item: Any, values: np.ndarray, *, signed: bool, scaled: bool = True) -> np.ndarray:
    """Entries of a table (PS3.3 C.11.1.1, C.11.2.1.1) for ``values``; ``scaled``: from its smallest to its largest.

    pydicom's ``apply_voi`` and ``apply_modality_lut`` return the same entries for tables that keep the standard. They
    reject 8-bit entries in OW, other declared numbers of bits (12 of a modality table, 9 of a VOI table) and tables
    shorter than declared; they take a negative first value that was written as unsigned for a large one; and they cut
    off the decimals of rescaled values. All of these occur, so the tables are read here.
    """
    entries = _entries(item)
    first = int(item.LUTDescriptor[1])
    if signed and first >= 2**15:  # written as unsigned
        first -= 2**16
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)
    found = entries[index].astype(np.float64)
    if not scaled:
        return found
    low, high = float(entries.min()), float(entries.max())
    return (found - low) / (high - low) if high > low else np.zeros_like(found)


def _entries(item: Any) -> np.ndarray:
    """The entries of a table, in 8 or 16 bits according to their number of bytes, not to the descriptor."""
    count = int(item.LUTDescriptor[0]) or 2**16
    data = item["LUTData"].value
    if isinstance(data, bytes):
        kind = np.dtype(np.uint8) if len(data) in (count, count + 1) and count > 1 else np.dtype("<u2")
        entries = np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)
    else:
        entries = np.atleast_1d(np.asarray(data, dtype=np.int64))
    if len(entries) == 0:
        raise ValueError("a look-up table without entries")
    return entries[:count]


def _window(dataset: Any) -> tuple[float, float, str] | None:
    """(centre, width, function) of the first window, or None without a usable one."""
    centre, width = (_first(dataset.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or not np.isfinite([centre, width]).all():
        return None
    return None if width < (1 if function == "LINEAR" else 1e-12) else (centre, width, function)


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        return float(value)
    except TypeError:  # a multi-valued element
        return float(value[0]) if len(value) else None


def apply_window(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Greyscale in [0, 1] of modality ``values`` after a VOI window, DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_windowing
    from pydicom.valuerep import DSfloat

    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"  # inversion comes later
    window.PixelRepresentation, window.BitsStored = 0, 1  # pydicom's output range: 0 to 1
    # Files may have more digits than DICOM allows, which pydicom reads but does not accept here.
    window.WindowCenter, window.WindowWidth = (DSfloat(value, auto_format=True) for value in (centre, width))
    window.VOILUTFunction = function
    return apply_windowing(values, window)
