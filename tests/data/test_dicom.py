"""DICOM files: presentation, and what cannot be presented."""

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from cxrfast.data.dicom import read_dicom
from cxrfast.data.images import read_image
from cxrfast.errors import CxrfastError

STORED = (np.arange(48, dtype=np.uint16).reshape(6, 8) * 80) % 4096


def write(path, pixels=STORED, bits=12, **elements):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    if pixels is not None:
        data.Rows, data.Columns = pixels.shape[:2]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = pixels.itemsize * 8, bits, bits - 1
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        data.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.save_as(path)
    return path


def test_without_window_the_stored_range_is_the_scale(tmp_path):
    image = read_dicom(write(tmp_path / "x.dcm"))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, STORED / 4095, atol=1e-6)
    signed = (STORED.astype(np.int16) - 2048).clip(-2048, 2047)
    np.testing.assert_allclose(read_dicom(write(tmp_path / "s.dcm", signed)), (signed + 2048.0) / 4095, atol=1e-6)


def test_monochrome1_is_inverted(tmp_path):
    plain = read_dicom(write(tmp_path / "a.dcm"))
    inverted = read_dicom(write(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(inverted, 1 - plain, atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("slope", [1, 2])
def test_window_agrees_with_pydicom(tmp_path, function, slope):
    path = write(
        tmp_path / "x.dcm",
        WindowCenter=[1500, 40],
        WindowWidth=[1200, 400],
        VOILUTFunction=function,
        RescaleSlope=slope,
        RescaleIntercept=-100,
    )
    low, high = -100, 4095 * slope - 100
    referee = (apply_windowing(STORED.astype(float) * slope - 100, pydicom.dcmread(path)) - low) / (high - low)
    np.testing.assert_allclose(read_dicom(path), referee, atol=1e-5)


def test_voi_lut(tmp_path):
    item = pydicom.Dataset()
    item.LUTDescriptor = [4096, 0, 10]
    item.add_new("LUTData", "OW", (np.arange(4096) // 8 * 2).astype("<u2").tobytes())
    path = write(tmp_path / "x.dcm", VOILUTSequence=[item])
    np.testing.assert_allclose(read_dicom(path), (STORED // 8 * 2) / 1023, atol=1e-5)


def test_unusable_window_is_passed_over(tmp_path):
    image = read_dicom(write(tmp_path / "x.dcm", WindowCenter=100, WindowWidth=0))
    np.testing.assert_allclose(image, STORED / 4095, atol=1e-6)


def test_what_has_no_single_image_is_named(tmp_path):
    (tmp_path / "text.dcm").write_text("not a DICOM file")
    whole = write(tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-40])
    for path, message in (
        (write(tmp_path / "frames.dcm", NumberOfFrames=3), "3 frames"),
        (write(tmp_path / "none.dcm", None), "holds no image"),
        (write(tmp_path / "palette.dcm", PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR"),
        (tmp_path / "text.dcm", "not a DICOM file"),
        (tmp_path / "cut.dcm", "cannot be decoded"),
        (tmp_path / "absent.dcm", "no DICOM file"),
    ):
        with pytest.raises(CxrfastError, match=message) as error:
            read_dicom(path)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)


def test_read_image_knows_dicom_by_its_content(tmp_path):
    path = write(tmp_path / "without_suffix")
    np.testing.assert_array_equal(read_image(path), read_dicom(path))


def test_real_files_equal_their_png(real_data):
    for file, name in (("udacity_test1", "00000002_000"), ("udacity_test2", "00000001_000")):
        image = read_image(real_data / "dicom" / f"{file}.dcm")
        copy = read_image(real_data / "nih" / "images" / f"{name}.png")
        assert image.shape == (1024, 1024)
        assert np.abs(cv2.resize(image, (512, 512), interpolation=cv2.INTER_AREA) - copy).mean() < 0.005


def test_real_jpeg_and_jpeg2000(real_data):
    inverted = read_image(real_data / "dicom" / "xrv_Fake_MONOHR1.dcm")
    assert inverted.shape == (1024, 1024)
    radiograph = read_image(real_data / "dicom" / "pydicom_RG1_J2KI.dcm")
    assert radiograph.shape == (1955, 1841)
    # inverted from MONOCHROME1: the mediastinum is brighter than the lung beside it
    assert radiograph[800:1000, 870:970].mean() > radiograph[600:800, 450:550].mean() + 0.1
