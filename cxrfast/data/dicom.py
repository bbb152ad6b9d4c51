"""Read DICOM files as greyscale arrays in [0, 1], with the initial display of a viewer."""

import os
import warnings
from pathlib import Path

import numpy as np

from cxrfast.data._grey import to_grey
from cxrfast.errors import CxrfastError


def read_dicom(path: str | os.PathLike) -> np.ndarray:
    """The image of a single-frame DICOM file as greyscale float32 ``[H, W]`` in [0, 1], with air black.

    The grayscale pipeline of DICOM PS3.3 C.11: modality rescale (or modality LUT), then the first VOI window or the VOI
    LUT, or the whole range of the stored bits if the file has neither. MONOCHROME1 is inverted.

    Raises :class:`CxrfastError` for files that are missing or damaged, without an image, or with several frames.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    path = Path(path)
    if not path.is_file():
        raise CxrfastError(f"no DICOM file {path}; check the path")
    # Many devices violate the standard in harmless ways, which pydicom reports as warnings. Relevant problems raise.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path)
        except InvalidDicomError:
            raise CxrfastError(f"{path} is not a DICOM file; pass a DICOM file or a PNG") from None
        except Exception as error:  # pydicom's parser raises many types
            raise _damaged(path, error) from error
        _require_single_image(dataset, path)
        try:
            stored = dataset.pixel_array
        except Exception as error:
            raise _damaged(path, error) from error
        try:
            grey = _present(dataset, stored)
        except (AttributeError, TypeError, ValueError, IndexError, KeyError, NotImplementedError) as error:
            raise _damaged(path, error) from error
    return np.ascontiguousarray(grey, dtype=np.float32)


def _damaged(path: Path, error: Exception) -> CxrfastError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CxrfastError(f"{path} cannot be decoded ({reason}); export it again, uncompressed or as PNG")


def _require_single_image(dataset, path: Path) -> None:
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = getattr(dataset.get("SOPClassUID"), "name", "unknown kind")
        raise CxrfastError(f"{path} holds no image ({kind}); pass a radiograph")
    if "PixelData" not in dataset:
        raise CxrfastError(f"{path} holds floating-point pixels; export it as a radiograph or as PNG")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise CxrfastError(f"{path} holds {frames} frames, expected one; export the frame you want as its own file")
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if not kind.startswith(("MONOCHROME", "RGB", "YBR")):
        raise CxrfastError(f"{path} has photometric interpretation {kind or 'missing'!r}; export it as PNG")


def _present(dataset, stored: np.ndarray) -> np.ndarray:
    """Stored values [H, W] or [H, W, 3] -> presented values in [0, 1], [H, W]."""
    bits = int(dataset.BitsStored)
    if stored.ndim == 3:
        return to_grey(stored.astype(np.float32) / (2**bits - 1))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)
    values, low, high = _rescale(dataset, stored, low, high)
    window = _window(dataset)
    if window is not None:
        grey = apply_window(values, *window)
    elif dataset.get("VOILUTSequence"):
        from pydicom.pixels.processing import apply_voi

        entry_bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        grey = apply_voi(values.astype(stored.dtype), dataset) / (2**entry_bits - 1)
    else:
        grey = (values - low) / (high - low)
    grey = np.clip(grey, 0.0, 1.0)
    return 1.0 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def _rescale(dataset, stored: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float, float]:
    """Apply the modality transform to the image and to the limits of the stored range."""
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        entry_bits = int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])
        return apply_modality_lut(stored, dataset).astype(np.float64), 0.0, float(2**entry_bits - 1)
    slope = float(dataset.get("RescaleSlope") or 1.0)
    intercept = float(dataset.get("RescaleIntercept") or 0.0)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return stored * slope + intercept, ends[0], ends[1]


def _window(dataset) -> tuple[float, float, str] | None:
    """(centre, width, function) of the first window, or None without a usable one."""
    centre, width = (_first(dataset.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or width < (1 if function == "LINEAR" else 1e-12):
        return None
    return centre, width, function


def _first(value) -> float | None:
    if value is None or value == "":
        return None
    try:
        return float(value)
    except TypeError:  # a multi-valued element
        return float(value[0]) if len(value) else None


def apply_window(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Greyscale in [0, 1] of modality ``values`` after a VOI window, DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if function != "LINEAR":
        raise ValueError(f"unknown VOI LUT function {function}")
    if width == 1:  # the formula's limit: a step
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)
