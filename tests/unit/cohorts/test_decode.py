"""Decoding against what Pillow or OpenCV wrote: exact where the format is lossless, and never silent on damage."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from marrowflow.cohorts import decode as module
from marrowflow.cohorts.decode import Unreadable, decode

LOSSLESS = {"PNG": "RGB L 1 P RGBA LA", "BMP": "RGB L 1 P RGBA", "TIFF": "RGB L 1 P RGBA LA CMYK"}
CHANNELS = {"RGB": 3, "L": 1, "1": 1, "P": 3, "RGBA": 4, "LA": 2, "CMYK": 4}


def smooth(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


RGB = Image.fromarray(smooth())
FILES = {
    "jpeg": encoded(RGB, "JPEG"),
    "progressive": encoded(RGB, "JPEG", progressive=True),
    "cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "png": encoded(RGB, "PNG"),
    "png16": cv2.imencode(".png", smooth().astype(np.uint16) * 257)[1].tobytes(),
    "bmp": encoded(RGB, "BMP"),
    "tiff": encoded(RGB, "TIFF"),
    "lzw": encoded(RGB, "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind, modes in LOSSLESS.items() for mode in modes.split()],
)
def test_lossless_formats_agree_with_pillow(kind, mode):
    source = RGB.quantize(32) if mode == "P" else RGB.convert(mode)
    image = decode(encoded(source, kind))
    np.testing.assert_array_equal(image.pixels, np.asarray(source.convert("RGB")))
    # A BMP written with 32 bits a pixel does not say whether the fourth byte is transparency.
    assert image.channels == (3 if (kind, mode) == ("BMP", "RGBA") else CHANNELS[mode])
    assert (image.format, image.bit_depth, image.width, image.height) == (kind, 8, 64, 48)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("CMYK", 4)])
def test_jpeg_agrees_with_pillow(mode, channels):
    data = encoded(RGB.convert(mode), "JPEG", quality=95)
    image = decode(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(image.pixels - expected).max() <= 1
    assert (image.channels, image.format, image.bit_depth) == (channels, "JPEG", 8)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("grey", [False, True])
def test_sixteen_bits_keep_the_high_byte(suffix, grey):
    eight = smooth()[..., 0] if grey else smooth()
    low = np.random.default_rng(1).integers(0, 256, eight.shape).astype(np.uint16)
    samples = eight.astype(np.uint16) * 256 + low
    image = decode(cv2.imencode(suffix, samples if grey else samples[..., ::-1])[1].tobytes())
    np.testing.assert_array_equal(image.pixels, np.repeat(eight[..., None], 3, 2) if grey else eight)
    assert (image.bit_depth, image.channels) == (16, 1 if grey else 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparency_is_laid_on_white(kind):
    pixels = np.zeros((4, 3, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:, 0, 3], pixels[:, 1, 3], pixels[:, 2, 3] = 0, 255, 51
    image = decode(encoded(Image.fromarray(pixels, "RGBA"), kind))
    # A fifth of (200, 0, 0) over four fifths of white: (244, 204, 204).
    assert image.pixels[0].tolist() == [[255, 255, 255], [200, 0, 0], [244, 204, 204]]
    assert image.channels == 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_in_every_format(kind, mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif, "quality": 95}
    data = encoded(RGB.convert(mode), kind, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    image = decode(data)
    assert image.orientation == orientation
    assert image.pixels.shape == expected.shape
    assert image.pixels.flags.c_contiguous
    assert np.abs(image.pixels.astype(int) - expected).max() <= 1


def test_first_of_several_pages():
    second = Image.fromarray(smooth(1))
    image = decode(encoded(RGB, "TIFF", save_all=True, append_images=[second, second]))
    np.testing.assert_array_equal(image.pixels, smooth())
    assert image.frames == 3


@pytest.mark.parametrize("name", FILES)
@given(share=st.floats(0.0, 0.99))
@settings(deadline=None, max_examples=25)
def test_every_truncation_is_noticed(name, share):
    data = FILES[name]
    with pytest.raises(Unreadable):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_called_truncated(name):
    with pytest.raises(Unreadable, match=r"^truncated$"):
        decode(FILES[name][: len(FILES[name]) * 2 // 3])


def test_a_png_without_its_last_chunk_is_truncated():
    with pytest.raises(Unreadable, match="truncated"):
        decode(FILES["png"][:-12])


def test_a_flipped_byte_in_a_png_is_damage():
    data = bytearray(FILES["png"])
    data[len(data) // 2] ^= 1
    with pytest.raises(Unreadable, match="damaged PNG"):
        decode(bytes(data))


@given(st.binary(max_size=200), st.sampled_from(sorted(module.SIGNATURES)))
@settings(deadline=None, max_examples=150)
def test_garbage_is_unreadable_and_nothing_else(body, signature):
    with pytest.raises(Unreadable):
        decode(signature + body)


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(40), b"%PDF-1.7", encoded(RGB, "GIF")])
def test_other_files_are_refused(data):
    with pytest.raises(Unreadable, match=r"empty file|neither JPEG"):
        decode(data)


def test_float_samples_are_refused():
    with pytest.raises(Unreadable, match="32-bit samples"):
        decode(encoded(RGB.convert("F"), "TIFF"))


def test_bombs_are_refused_before_they_are_decoded():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))
        for tag, body in chunks
    )
    with pytest.raises(Unreadable, match="too large"):
        decode(data)


@pytest.mark.parametrize("name", ["jpeg", "png", "bmp", "tiff"])
def test_the_limit_counts_pixels(name, monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(Unreadable, match="too large: 64 x 48 pixels"):
        decode(FILES[name])
