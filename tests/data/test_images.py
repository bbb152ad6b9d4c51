"""Image files of every kind, whole and broken."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from cxrfast.data.images import image_size, read_image
from cxrfast.errors import CxrfastError

# Orientation 6 in texts, as ImageMagick and Adobe write it
_TIFF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
_PROFILE = f"\nexif\n{len(_TIFF):>8}\n{_TIFF.hex()}\n"
_XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def save(path, pixels, mode=None):
    Image.fromarray(pixels).convert(mode).save(path) if mode else Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
@pytest.mark.parametrize("suffix", [".png"])
def test_grey_in_any_8_bit_mode_gives_its_values_exactly(tmp_path, mode, suffix):
    image = read_image(save(tmp_path / f"x{suffix}", GREY, mode))
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, GREY.astype(np.float32) / 255)


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".png"])
def test_lossless_formats(tmp_path, suffix):
    np.testing.assert_array_equal(read_image(save(tmp_path / f"x{suffix}", GREY)), GREY.astype(np.float32) / 255)


def test_jpeg(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    for mode in ("L", "RGB", "CMYK"):
        image = read_image(save(tmp_path / f"{mode}.jpg", smooth, mode))
        assert np.abs(image - smooth / 255).max() < 0.06


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_keeps_16_bits(tmp_path, channels):
    deep = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1301 + 7
    pixels = deep if channels == 1 else np.repeat(deep[..., None], channels, axis=2)
    if channels == 4:
        pixels[..., 3] = 65535
    cv2.imwrite(str(tmp_path / "x.png"), pixels)
    np.testing.assert_allclose(read_image(tmp_path / "x.png"), deep / 65535, rtol=0, atol=1e-7)


def test_colour_is_weighted_in_the_right_order(tmp_path):
    red = np.zeros((4, 4, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert read_image(save(tmp_path / "8.png", red))[0, 0] == pytest.approx(0.299)
    cv2.imwrite(
        str(
            tmp_path / "16.png",
        ),
        red[..., ::-1].astype(np.uint16) * 257,
    )
    assert read_image(tmp_path / "16.png")[0, 0] == pytest.approx(0.299)


def test_transparent_pixels_are_black(tmp_path):
    pixels = np.full((4, 4, 4), 200, dtype=np.uint8)
    pixels[:2, :, 3], pixels[2:, :, 3] = 0, 255
    image = read_image(save(tmp_path / "x.png", pixels))
    assert image[:2].max() == 0
    assert image[2:].min() == pytest.approx(200 / 255)


@settings(max_examples=40, deadline=None)
@given(cut=st.floats(0.0, 0.999))
def test_a_png_cut_anywhere_is_an_error(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "x.png"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    data = save(path, noise).read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(CxrfastError, match=r"x\.png") as error:
        read_image(path)
    assert "\n" not in str(error.value)


def test_a_jpeg_cut_short_is_an_error(tmp_path):
    data = save(tmp_path / "x.jpg", np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).read_bytes()
    (tmp_path / "x.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(CxrfastError, match="truncated"):
        read_image(tmp_path / "x.jpg")


def test_a_flipped_bit_is_an_error(tmp_path):
    data = bytearray(save(tmp_path / "x.png", GREY).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(CxrfastError, match="damaged"):
        read_image(tmp_path / "x.png")


def test_zero_size_png(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    with pytest.raises(CxrfastError, match="no pixels"):
        read_image(tmp_path / "x.png")


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "text.png").write_text("not an image\n")
    (tmp_path / "empty.png").touch()
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "float.tif")
    for path, message in (
        (tmp_path / "text.png", r"text\.png is not an image"),
        (tmp_path / "empty.png", r"empty\.png is an empty file"),
        (tmp_path / "absent.png", r"no image file .*absent\.png"),
        (tmp_path / "float.tif", r"float\.tif has pixels of mode F"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(CxrfastError, match=message):
            read_image(path)


def test_real_originals_and_their_copies(real_data):
    """RGBA and grey originals of 1024 pixels look like the 512 pixel copies of the same images."""
    modes = set()
    for path in sorted((real_data / "nih" / "originals").glob("*.png"))[:6]:
        with Image.open(path) as image:
            modes.add(image.mode)
        original, copy = read_image(path), read_image(real_data / "nih" / "images" / path.name)
        assert original.shape == (1024, 1024)
        assert copy.shape == (512, 512)
        assert np.abs(cv2.resize(original, (512, 512), interpolation=cv2.INTER_AREA) - copy).mean() < 0.01
    assert modes == {"L", "RGBA"}


def test_real_truncated_png(real_data, tmp_path):
    path = next((real_data / "nih" / "images").glob("*.png"))
    data = path.read_bytes()
    for part in (0.2, 0.9, 0.9999):
        (tmp_path / "cut.png").write_bytes(data[: int(part * len(data))])
        with pytest.raises(CxrfastError, match=r"cut\.png is a truncated PNG"):
            read_image(tmp_path / "cut.png")


def test_orientation_and_pages(tmp_path):
    upright = np.tile(np.linspace(0, 255, 6), (8, 1)).astype(np.uint8)  # 8 high, 6 wide
    lying = Image.fromarray(np.rot90(upright).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise to be viewed
    lying.save(tmp_path / "a.png", exif=exif)
    lying.save(tmp_path / "a.tif", tiffinfo={274: 6})
    for name in ("a.png", "a.tif"):
        np.testing.assert_allclose(read_image(tmp_path / name), upright / 255, atol=1e-6)
    deep = np.stack([np.rot90(upright).astype(np.uint16) * 257] * 3, axis=-1)
    data = cv2.imencode(".png", deep)[1].tobytes()
    for value in range(1, 9):
        exif[0x0112] = value
        block = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(block) - 4) + block + struct.pack(">I", zlib.crc32(block))
        (tmp_path / "deep.png").write_bytes(data[:33] + chunk + data[33:])
        lying.save(tmp_path / "plain.png", exif=exif)  # Pillow turns the same image of 8 bits
        np.testing.assert_allclose(
            read_image(tmp_path / "deep.png"), read_image(tmp_path / "plain.png"), atol=1e-6, err_msg=str(value)
        )
    Image.fromarray(upright).save(tmp_path / "b.tif", save_all=True, append_images=[Image.fromarray(255 - upright)])
    with pytest.raises(CxrfastError, match="holds 2 pages, expected one"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_image_size_is_that_of_the_image_that_is_read(tmp_path, suffix):
    picture = Image.fromarray(np.zeros((8, 6), np.uint8))
    for orientation in (None, *range(1, 9)):
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        path = tmp_path / f"a.{suffix}"
        picture.save(path, **({} if suffix == "bmp" else {"exif": exif}))
        height, width = read_image(path).shape
        assert image_size(path) == (width, height), orientation
        assert (width, height) == ((8, 6) if suffix != "bmp" and (orientation or 0) > 4 else (6, 8))


def test_image_size_of_a_png_with_texts_and_an_orientation_in_one_of_them(tmp_path):
    for keyword, value in (("Title", "a chest"), ("Raw profile type exif", _PROFILE), ("XML:com.adobe.xmp", _XMP)):
        texts = PngInfo()
        texts.add_text(keyword, value)
        Image.fromarray(np.zeros((8, 6), np.uint8)).save(tmp_path / "a.png", pnginfo=texts)
        height, width = read_image(tmp_path / "a.png").shape
        assert image_size(tmp_path / "a.png") == (width, height), keyword
        assert (width, height) == ((6, 8) if keyword == "Title" else (8, 6))


def test_image_size_reads_no_pixels_of_a_png_but_sees_that_they_are_missing(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)).save(path)
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", None)
        assert image_size(path) == (30, 40)
    data = path.read_bytes()
    for length in (4, 20, 36, 200, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CxrfastError, match=r"a\.png: the header of the image cannot be read"):
            image_size(path)
    path.write_bytes(b"")
    with pytest.raises(CxrfastError, match=r"a\.png is an empty file"):
        image_size(path)
    path.write_bytes(data[:16] + bytes(4) + data[20:])
    with pytest.raises(CxrfastError, match="no pixels, size 0×40"):
        image_size(path)
