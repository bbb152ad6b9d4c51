"""DICOM files: presentation, and what cannot be presented."""

import math

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from cxrfast.data.dicom import apply_window, holds_image, read_dicom, read_dicom_image
from cxrfast.data.images import read_image
from cxrfast.errors import CxrfastError
from cxrfast.inference._inputs import expand_inputs

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


@pytest.mark.parametrize(
    ("function", "width", "values", "expected"),
    [
        ("LINEAR", 11, [90, 94.5, 97, 99.5, 104.5, 110], [0, 0, 0.25, 0.5, 1, 1]),
        ("LINEAR", 1, [99.4, 99.5, 99.6], [0, 0, 1]),
        ("LINEAR_EXACT", 10, [90, 95, 97.5, 100, 105, 110], [0, 0, 0.25, 0.5, 1, 1]),
        ("SIGMOID", 10, [100, 102.5, 97.5], [0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))]),
    ],
)
def test_windows_of_the_standard_by_hand(function, width, values, expected):
    found = apply_window(np.array(values, dtype=float), 100, width, function)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_a_window_with_more_digits_than_dicom_allows():
    assert apply_window(np.array([0.5]), 1 / 3, 2 / 3, "LINEAR_EXACT").item() == pytest.approx(0.75)


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
    np.testing.assert_allclose(read_dicom(path), (STORED // 8 * 2) / 1022, atol=1e-5)  # the table's largest is white


def table(entries, first=0, bits=12, kind="<u2", vr="US"):
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries).astype(kind).tobytes())
    return [item]


def test_a_voi_table_is_scaled_by_its_own_entries(tmp_path):
    """Whatever number of bits it declares; 8-bit entries in bytes or in words."""
    for bits, kind in ((16, "<u2"), (8, "<u2")):
        path = write(tmp_path / "x.dcm", VOILUTSequence=table(np.arange(4096), bits=bits, kind=kind))
        np.testing.assert_allclose(read_dicom(path), STORED / 4095, atol=1e-5)
    path = write(tmp_path / "x.dcm", VOILUTSequence=table(np.arange(4096) // 16, bits=8, kind="<u1"))
    np.testing.assert_allclose(read_dicom(path), (STORED // 16) / 255, atol=1e-5)


def test_a_voi_table_that_begins_at_a_negative_value(tmp_path):
    """Of values that a rescale has made negative or fractional; values outside take the first or last entry."""
    for vr, first in (("SS", -1024), ("US", 65536 - 1024)):
        path = write(
            tmp_path / "x.dcm",
            RescaleSlope=1,
            RescaleIntercept=-1024,
            VOILUTSequence=table(np.arange(4096), first, vr=vr),
        )
        np.testing.assert_allclose(read_dicom(path), STORED / 4095, atol=1e-5)
    path = write(tmp_path / "x.dcm", RescaleSlope=0.5, VOILUTSequence=table(np.arange(2048)))
    np.testing.assert_allclose(read_dicom(path), np.rint(STORED / 2) / 2047, atol=1e-5)
    path = write(tmp_path / "x.dcm", VOILUTSequence=table(np.arange(1000), first=1000))
    np.testing.assert_allclose(read_dicom(path), np.clip(STORED.astype(float) - 1000, 0, 999) / 999, atol=1e-5)


def test_a_modality_table(tmp_path):
    entries = (np.arange(4096) // 2)[::-1].copy()
    path = write(tmp_path / "x.dcm", ModalityLUTSequence=table(entries, bits=16))
    np.testing.assert_allclose(read_dicom(path), entries[STORED] / 2047, atol=1e-5)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_presentation_lut_shape_inverse_inverts_once(tmp_path, photometric):
    path = write(tmp_path / "x.dcm", PhotometricInterpretation=photometric, PresentationLUTShape="INVERSE")
    np.testing.assert_allclose(read_dicom(path), 1 - STORED / 4095, atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_no_range_is_taken_from_it(tmp_path, photometric):
    pixels = STORED.copy() // 8
    pixels[:, :2] = 4095
    options = {"bits": 16, "PhotometricInterpretation": photometric}
    for elements in ({"PixelPaddingValue": 4095}, {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}):
        found = read_dicom_image(write(tmp_path / "x.dcm", pixels, **options, **elements))
        assert (found.pixels[:, :2] == 0).all()
        inner = pixels[:, 2:] / 511
        expected = 1 - inner if photometric == "MONOCHROME1" else inner
        np.testing.assert_allclose(found.pixels[:, 2:], expected, atol=1e-6)
    whole = read_dicom(write(tmp_path / "y.dcm", np.full((4, 4), 7, np.uint16), PixelPaddingValue=7))
    assert (whole > 0).all()  # an image that is all padding is shown as it is
    signed = np.full((4, 4), -2000, np.int16)
    signed[0] = 0
    found = read_dicom(write(tmp_path / "z.dcm", signed, PixelPaddingValue=-2000))
    assert (found[1:] == 0).all()


def test_bits_that_are_declared_and_not_used(tmp_path):
    """The range is that of the bits in use, and a note says so; not where at least a quarter of the range is used."""
    found = read_dicom_image(write(tmp_path / "x.dcm", bits=16))
    np.testing.assert_allclose(found.pixels, STORED / 4095, atol=1e-6)
    assert found.notes == ("no window, and of 16 stored bits values use up to 3760: 4095 is shown as white",)
    found = read_dicom_image(write(tmp_path / "x.dcm", STORED // 2, bits=12))
    np.testing.assert_allclose(found.pixels, (STORED // 2) / 4095, atol=1e-6)
    assert found.notes == ()
    found = read_dicom_image(write(tmp_path / "x.dcm", bits=16, WindowCenter=2000, WindowWidth=4000))
    assert found.notes == ()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_without_a_preamble(tmp_path, syntax):
    data = pydicom.dcmread(write(tmp_path / "x.dcm"))
    bare = pydicom.Dataset()
    bare.update(data)
    bare.save_as(tmp_path / "bare.dcm", implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    assert (tmp_path / "bare.dcm").read_bytes()[128:132] != b"DICM"
    for name in ("bare.dcm", "bare"):
        (tmp_path / "bare.dcm").rename(tmp_path / name) if name == "bare" else None
        np.testing.assert_allclose(read_image(tmp_path / name), STORED / 4095, atol=1e-6)


def test_a_rescale_that_is_no_transform(tmp_path):
    with pytest.raises(CxrfastError, match="RescaleSlope is 0"):
        read_dicom(write(tmp_path / "x.dcm", RescaleSlope=0))
    path = write(tmp_path / "y.dcm", RescaleSlope="1.5")
    path.write_bytes(path.read_bytes().replace(b"1.5 ", b"nan "))
    with pytest.raises(CxrfastError, match="cannot be decoded"):
        read_dicom(path)


def test_a_folder_without_its_directories_and_reports(tmp_path):
    write(tmp_path / "image.dcm")
    write(tmp_path / "state.dcm", pixels=None)
    write(tmp_path / "DICOMDIR", pixels=None)
    assert holds_image(tmp_path / "image.dcm")
    assert not holds_image(tmp_path / "state.dcm")
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    assert holds_image(tmp_path / "broken.dcm")
    files, failures = expand_inputs([tmp_path])
    assert [file.name for file in files] == ["broken.dcm", "image.dcm"]
    assert failures == {}


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
