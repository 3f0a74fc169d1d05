"""The kinds of image files that people have: a small file of each, and docs/formats.md.

``python tests/kinds.py`` writes tests/data/images/ and the tables of docs/formats.md again. What a
file must become is computed in tests/test_formats.py, by decoders that share no code with Pillow.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import png
import tifffile
from PIL import Image

from studyguide.machinery.files import atomic

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "data" / "images"
PAGE = ROOT / "docs" / "formats.md"
HEIGHT, WIDTH = 5, 7

Samples = np.ndarray


@dataclass(frozen=True)
class Kind:
    """One kind of file: its name, what it holds, and what becomes of it."""

    file: str
    holds: str
    becomes: str  # grey, RGB or RGBA; or "refused"
    body: bytes = field(repr=False)
    note: str = ""  # what `load` says of what it left out, or of why it refuses
    space: str = ""  # of the colours, if not sRGB
    orientation: int = 1

    @property
    def path(self) -> Path:
        return FOLDER / self.file


# --- samples -------------------------------------------------------------------------------------


def samples(channels: int, bits: int, seed: int = 0) -> Samples:
    """Random samples (H, W, C) that use all bits; one channel has shape (H, W)."""
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    kind = np.uint16 if bits > 8 else np.uint8
    return np.random.default_rng(seed).integers(0, 1 << bits, shape, kind)


def smooth(channels: int) -> Samples:
    """16 x 24 pixels in wide steps that lossy formats change by little."""
    rows, columns = np.mgrid[:16, :24] // 8
    planes = [40 + 60 * rows + 20 * n + 50 * columns for n in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8).reshape(16, 24, -1)


# --- colour profiles -----------------------------------------------------------------------------

# Chromaticities of red, green and blue, and white, of some RGB spaces; and their gamma.
SPACES = {
    "Display P3": ((0.68, 0.32, 0.265, 0.69, 0.15, 0.06), (0.3127, 0.329), 2.2),
    "Adobe RGB": ((0.64, 0.33, 0.21, 0.71, 0.15, 0.06), (0.3127, 0.329), 2.19921875),
    "ProPhoto": ((0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), (0.3457, 0.3585), 1.8),
    "sRGB": ((0.64, 0.33, 0.3, 0.6, 0.15, 0.06), (0.3127, 0.329), 0.0),
}
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def to_xyz(x: float, y: float) -> np.ndarray:
    """XYZ of a chromaticity, with Y = 1."""
    return np.array([x / y, 1.0, (1 - x - y) / y])


def matrix(space: str) -> np.ndarray:
    """From linear RGB of a space to XYZ as seen under D50: columns are red, green and blue."""
    primaries, white_point, _ = SPACES[space]
    columns = np.stack([to_xyz(*primaries[n : n + 2]) for n in (0, 2, 4)], axis=1)
    white = to_xyz(*white_point)
    columns = columns * np.linalg.solve(columns, white)
    adapt = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD
    return adapt @ columns


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def icc(space: bytes, pcs: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2. Source: ICC.1:2001-04, sections 6 and 7."""
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(8) + bytes(2 + 1 + 67)
    tags = {b"desc": text, b"cprt": b"text" + bytes(4) + b"-\0", **tags}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + fixed(*D50)
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02400000, kind, space, pcs)
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + fixed(*D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def gamma_curve(gamma: float) -> bytes:
    if gamma:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    levels = [round(65535 * linear(n / 255)) for n in range(256)]
    return b"curv" + bytes(4) + struct.pack(">I256H", 256, *levels)


def linear(value: Any) -> Any:
    """Light of an sRGB level, both from 0 to 1. Source: IEC 61966-2-1."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def rgb_profile(space: str) -> bytes:
    columns, curve = matrix(space).T, gamma_curve(SPACES[space][2])
    tags = {b"rgb"[n : n + 1] + b"XYZ": b"XYZ " + bytes(4) + fixed(*columns[n]) for n in range(3)}
    tags |= {b"rgb"[n : n + 1] + b"TRC": curve for n in range(3)}
    return icc(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float = 1.8) -> bytes:
    return icc(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": gamma_curve(gamma)})


def cmyk_lab(cyan: float, magenta: float, yellow: float, black: float) -> np.ndarray:
    """L*, a* and b* that our invented press prints for inks of 0 or 1."""
    ink = np.array([cyan, magenta, yellow])
    light = 100 * (1 - black) * (1 - 0.25 * ink.sum())
    return np.array([light, *(1 - black) * (ink @ [[-30, -30], [45, -5], [-5, 60]])])


def cmyk_profile() -> bytes:
    """A profile with a table of the 16 corners between which colours are interpolated."""
    corners = [cmyk_lab(*(n >> shift & 1 for shift in (3, 2, 1, 0))) for n in range(16)]
    levels = [round(v) for L, a, b in corners for v in (L * 2.55, a + 128, b + 128)]
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    straight = bytes(range(256))
    table += straight * 4 + bytes(levels) + straight * 3
    return icc(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table, b"A2B1": table})


# --- PNG -----------------------------------------------------------------------------------------


def png_file(
    pixels: Samples, bits: int = 8, *, chunks: dict[bytes, bytes] | None = None, **options: Any
) -> bytes:
    """A PNG by pypng, with more chunks behind its header."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    file = io.BytesIO()
    writer = png.Writer(
        pixels.shape[1],
        pixels.shape[0],
        greyscale="palette" not in options and channels < 3,
        alpha=channels in (2, 4),
        bitdepth=bits,
        **options,
    )
    writer.write(file, pixels.reshape(pixels.shape[0], -1).tolist())
    written = list(png.Reader(bytes=file.getvalue()).chunks())
    added = [(kind, body) for kind, body in (chunks or {}).items()]
    file = io.BytesIO()
    png.write_chunks(file, [written[0], *added, *written[1:]])
    return file.getvalue()


def iccp(profile: bytes) -> dict[bytes, bytes]:
    return {b"iCCP": b"x\0\0" + zlib.compress(profile, 9)}


def palette(colours: int, see_through: int) -> list[tuple[int, ...]]:
    """Some colours; the first ones are more or less transparent."""
    rows = np.random.default_rng(colours).integers(0, 256, (colours, 4)).tolist()
    return [tuple(row if n < see_through else row[:3]) for n, row in enumerate(rows)]


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes().removeprefix(b"Exif\0\0")


def pngs() -> Iterator[Kind]:
    for bits in (1, 2, 4, 8, 16):
        grey, holds = samples(1, bits), f"grey, {bits} bits"
        yield Kind(f"grey-{bits}.png", holds, "grey", png_file(grey, bits))
        body = png_file(grey, bits, transparent=int(grey[1, 2]))
        yield Kind(f"grey-{bits}-key.png", f"{holds}, one level transparent", "RGBA", body)
    for bits in (8, 16):
        for channels, name, holds in ((2, "grey-alpha", "grey with alpha"), (3, "rgb", "RGB")):
            pixels = samples(channels, bits)
            becomes = "RGBA" if channels == 2 else "RGB"
            body = png_file(pixels, bits)
            yield Kind(f"{name}-{bits}.png", f"{holds}, {bits} bits", becomes, body)
        rgb = samples(3, bits)
        rgb[0, 1] = rgb[0, 0] ^ 1  # a neighbour of the transparent colour in its lowest bit
        key = tuple(rgb[0, 0].tolist())
        body = png_file(rgb, bits, transparent=key)
        yield Kind(f"rgb-{bits}-key.png", f"RGB, {bits} bits, one colour transparent", "RGBA", body)
        body = png_file(samples(4, bits), bits)
        yield Kind(f"rgba-{bits}.png", f"RGBA, {bits} bits", "RGBA", body)
        body = png_file(samples(3, bits), bits, interlace=True)
        yield Kind(f"rgb-{bits}-interlaced.png", f"RGB, {bits} bits, interlaced", "RGB", body)
    for bits in (1, 2, 4, 8):
        index = samples(1, bits)
        for see_through in (0, 1 << bits >> 1 if bits < 8 else 4):
            end, words = ("-alpha", ", some transparent") if see_through else ("", "")
            body = png_file(index, bits, palette=palette(1 << bits, see_through))
            becomes = "RGBA" if see_through else "RGB"
            yield Kind(f"palette-{bits}{end}.png", f"palette, {bits} bits{words}", becomes, body)
    for n in (3, 6):
        body = png_file(samples(3, 8), chunks={b"eXIf": exif(n)})
        yield Kind(f"rgb-8-exif-{n}.png", f"RGB, EXIF orientation {n}", "RGB", body, orientation=n)
    yield from png_colours()


def png_colours() -> Iterator[Kind]:
    for space in SPACES:
        body = png_file(samples(3, 8), chunks=iccp(rgb_profile(space)))
        name = f"rgb-8-{space.lower().replace(' ', '-')}"
        yield Kind(f"{name}.png", f"RGB, profile {space}", "RGB", body, space=space)
    p3, adobe, grey = rgb_profile("Display P3"), rgb_profile("Adobe RGB"), grey_profile()
    for name, holds, becomes, pixels, bits, profile, space in (
        ("rgb-16-prophoto", "RGB, 16 bits", "RGB", samples(3, 16), 16, None, "ProPhoto"),
        ("rgba-8-display-p3", "RGBA", "RGBA", samples(4, 8), 8, p3, "Display P3"),
        ("grey-8-profile", "grey", "grey", samples(1, 8), 8, grey, "grey of gamma 1.8"),
        ("grey-16-profile", "grey, 16 bits", "grey", samples(1, 16), 16, grey, "grey of gamma 1.8"),
        (
            "grey-alpha-16-profile",
            "grey with alpha, 16 bits",
            "RGBA",
            samples(2, 16),
            16,
            grey,
            "grey of gamma 1.8",
        ),
        ("grey-8-adobe-rgb", "grey", "grey", samples(1, 8), 8, adobe, "Adobe RGB"),
    ):
        profile = profile or rgb_profile(space)
        body = png_file(pixels, bits, chunks=iccp(profile))
        yield Kind(f"{name}.png", f"{holds}, profile {space}", becomes, body, space=space)
    body = png_file(samples(1, 2), 2, palette=palette(4, 2), chunks=iccp(p3))
    words = "palette, some transparent, profile Display P3"
    yield Kind("palette-2-display-p3.png", words, "RGBA", body, space="Display P3")
    note = "its colour profile is not applied"
    body = png_file(samples(3, 8), chunks=iccp(p3[:200]))
    yield Kind("rgb-8-broken-profile.png", "RGB, a damaged profile", "RGB", body, note=note)
    body = png_file(samples(3, 8), chunks=iccp(cmyk_profile()))
    yield Kind("rgb-8-cmyk-profile.png", "RGB, a profile of CMYK", "RGB", body, note=note)
    body = png_file(samples(3, 8), chunks={b"gAMA": struct.pack(">I", 100_000)})
    note = "its gamma of 1 is not applied"
    yield Kind("rgb-8-gamma-1.png", "RGB, a gAMA chunk of 1.0", "RGB", body, note=note)
    values = [round(v * 1e5) for v in (*SPACES["Adobe RGB"][1], *SPACES["Adobe RGB"][0])]
    body = png_file(samples(3, 8), chunks={b"cHRM": struct.pack(">8I", *values)})
    note = "its primaries are not applied"
    yield Kind("rgb-8-primaries.png", "RGB, a cHRM chunk of Adobe RGB", "RGB", body, note=note)
    frames = [Image.fromarray(samples(3, 8, seed)) for seed in range(3)]
    body = by_pillow(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield Kind("rgb-8-animated.png", "RGB, 3 frames (APNG)", "RGB", body, note="first of 3 frames")


# --- JPEG and WebP -------------------------------------------------------------------------------


def by_pillow(image: Image.Image, container: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, container, **options)
    return file.getvalue()


def jpegs() -> Iterator[Kind]:
    grey, rgb = Image.fromarray(smooth(1)[..., 0]), Image.fromarray(smooth(3))
    inks = np.kron(np.arange(6).reshape(2, 3), np.ones((8, 8), int))
    corners = np.stack([inks >> shift & 1 for shift in (2, 1, 0, 9)], axis=-1) * 255
    corners[:8, :8] = 0, 0, 0, 255
    cmyk = Image.frombytes("CMYK", (24, 16), corners.astype(np.uint8).tobytes())
    p3 = rgb_profile("Display P3")
    for name, holds, image, becomes, options, more in (
        ("grey", "grey", grey, "grey", {}, {}),
        ("rgb", "RGB, full colour resolution", rgb, "RGB", {"subsampling": 0}, {}),
        ("rgb-420", "RGB, a quarter of the colour resolution", rgb, "RGB", {"subsampling": 2}, {}),
        ("rgb-progressive", "RGB, progressive", rgb, "RGB", {"progressive": True}, {}),
        ("rgb-exif-6", "RGB, EXIF orientation 6", rgb, "RGB", {"exif": exif_of(6)},
         {"orientation": 6}),
        ("rgb-display-p3", "RGB, profile Display P3", rgb, "RGB", {"icc_profile": p3},
         {"space": "Display P3"}),
        ("grey-profile", "grey, profile grey of gamma 1.8", grey, "grey",
         {"icc_profile": grey_profile()}, {"space": "grey of gamma 1.8"}),
        ("cmyk", "CMYK (Adobe, inverted)", cmyk, "RGB", {}, {}),
        ("cmyk-profile", "CMYK, profile of a press", cmyk, "RGB", {"icc_profile": cmyk_profile()},
         {"space": "press"}),
        ("rgb-mpo", "RGB, 2 pictures (MPO)", rgb, "RGB",
         {"format": "MPO", "save_all": True, "append_images": [rgb]},
         {"note": "first of 2 frames"}),
    ):  # fmt: skip
        options = {"quality": 95, **options}
        container = options.pop("format", "JPEG")
        body = by_pillow(image, container, **options)
        yield Kind(f"{name}.jpg", holds, becomes, body, **more)


def exif_of(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def webps() -> Iterator[Kind]:
    rgb, rgba = Image.fromarray(samples(3, 8)), Image.fromarray(samples(4, 8))
    exact = {"lossless": True, "exact": True}
    p3 = rgb_profile("Display P3")
    for name, holds, image, becomes, options, more in (
        ("rgb", "RGB, lossless", rgb, "RGB", exact, {}),
        ("rgba", "RGBA, lossless", rgba, "RGBA", exact, {}),
        ("rgb-lossy", "RGB, lossy", Image.fromarray(smooth(3)), "RGB", {"quality": 90}, {}),
        ("rgb-exif-6", "RGB, EXIF orientation 6", rgb, "RGB", {**exact, "exif": exif_of(6)},
         {"orientation": 6}),
        ("rgb-display-p3", "RGB, profile Display P3", rgb, "RGB", {**exact, "icc_profile": p3},
         {"space": "Display P3"}),
        ("rgba-animated", "RGBA, 2 frames", rgba, "RGBA",
         {**exact, "save_all": True, "append_images": [rgba.rotate(180)]},
         {"note": "first of 2 frames"}),
    ):  # fmt: skip
        body = by_pillow(image, "WEBP", **options)
        yield Kind(f"{name}.webp", holds, becomes, body, **more)


# --- TIFF ----------------------------------------------------------------------------------------


def tiff_file(pixels: Samples, photometric: str, **options: Any) -> bytes:
    file = io.BytesIO()
    options = {"metadata": None, "software": False, **options}
    tifffile.imwrite(file, pixels, photometric=photometric, **options)
    return file.getvalue()


def tiffs() -> Iterator[Kind]:
    """What is read."""
    black, white, rgb, apart = "minisblack", "miniswhite", "rgb", {"planarconfig": "separate"}
    big, alpha = {"byteorder": ">"}, {"extrasamples": ["unassalpha"]}
    divided = {"extrasamples": ["assocalpha"]}
    two = {"planarconfig": "contig"}
    colours = np.random.default_rng(1).integers(0, 65536, (3, 256)).astype(np.uint16)
    rows: list[tuple[str, str, str, Samples, str, dict[str, Any]]] = [
        ("bilevel", "bilevel", "grey", samples(1, 1).astype(bool), black, {}),
        ("bilevel-white", "bilevel, 0 is white", "grey", samples(1, 1).astype(bool), white, {}),
        ("grey-8", "grey, 8 bits", "grey", samples(1, 8), black, {}),
        ("grey-8-white", "grey, 8 bits, 0 is white", "grey", samples(1, 8), white, {}),
        ("grey-2", "grey, 2 bits", "grey", samples(1, 2), black, {"bitspersample": 2}),
        ("grey-4", "grey, 4 bits", "grey", samples(1, 4), black, {"bitspersample": 4}),
        ("grey-12", "grey, 12 bits", "grey", samples(1, 12), black, {"bitspersample": 12}),
        ("grey-16", "grey, 16 bits", "grey", samples(1, 16), black, {}),
        ("grey-16-big-endian", "grey, 16 bits, big-endian", "grey", samples(1, 16), black, big),
        ("grey-16-white", "grey, 16 bits, 0 is white", "grey", samples(1, 16), white, {}),
        ("grey-alpha-8", "grey with alpha", "RGBA", samples(2, 8), black, two | alpha),
        ("grey-alpha-8-associated", "grey with associated alpha", "RGBA", dimmed(2, 8), black,
         two | divided),
        ("rgb-8", "RGB, 8 bits", "RGB", samples(3, 8), rgb, {}),
        ("rgb-8-planar", "RGB, 8 bits, planar", "RGB",
         np.moveaxis(samples(3, 8), 2, 0), rgb, apart),
        ("rgb-8-bigtiff", "RGB, 8 bits, BigTIFF", "RGB", samples(3, 8), rgb, {"bigtiff": True}),
        ("rgb-8-tiled", "RGB, 8 bits, in tiles", "RGB", samples(3, 8), rgb, {"tile": (16, 16)}),
        ("rgb-16", "RGB, 16 bits", "RGB", samples(3, 16), rgb, {}),
        ("rgb-16-big-endian", "RGB, 16 bits, big-endian", "RGB", samples(3, 16), rgb, big),
        ("rgb-16-planar-lzw", "RGB, 16 bits, planar, LZW", "RGB",
         np.moveaxis(samples(3, 16), 2, 0), rgb, apart | {"compression": "lzw"}),
        ("rgba-8", "RGBA, 8 bits", "RGBA", samples(4, 8), rgb, alpha),
        ("rgba-8-associated", "RGBA, 8 bits, associated alpha", "RGBA", dimmed(4, 8), rgb, divided),
        ("rgba-16", "RGBA, 16 bits", "RGBA", samples(4, 16), rgb, alpha),
        ("rgba-16-associated", "RGBA, 16 bits, associated alpha", "RGBA", dimmed(4, 16), rgb,
         divided),
        ("palette-8", "palette, 8 bits", "RGB", samples(1, 8), "palette", {"colormap": colours}),
        ("cmyk-8", "CMYK, 8 bits", "RGB", samples(4, 8), "separated", {}),
        ("cmyk-16", "CMYK, 16 bits", "RGB", samples(4, 16), "separated", {}),
    ]  # fmt: skip
    for name in ("lzw", "deflate", "packbits", "zstd"):
        more = {"compression": name} | ({"predictor": True} if name in ("lzw", "deflate") else {})
        rows.append((f"rgb-16-{name}", f"RGB, 16 bits, {name}", "RGB", samples(3, 16), rgb, more))
    for name, holds, becomes, pixels, photometric, options in rows:
        body = tiff_file(pixels, photometric, **options)
        yield Kind(f"{name}.tif", holds, becomes, body)
    for n in range(2, 9):
        tag = [(274, "H", 1, n, True)]
        body = tiff_file(samples(3, 16), rgb, extratags=tag)
        words = f"RGB, 16 bits, orientation {n}"
        yield Kind(f"rgb-16-turned-{n}.tif", words, "RGB", body, orientation=n)
    for name, pixels, photometric, profile, space in (
        ("rgb-8-adobe-rgb", samples(3, 8), rgb, rgb_profile("Adobe RGB"), "Adobe RGB"),
        ("rgb-16-prophoto", samples(3, 16), rgb, rgb_profile("ProPhoto"), "ProPhoto"),
        ("cmyk-8-profile", 255 * samples(4, 1), "separated", cmyk_profile(), "press"),
    ):
        body = tiff_file(pixels, photometric, iccprofile=profile)
        holds = f"{'CMYK' if photometric == 'separated' else 'RGB'}, profile {space}"
        yield Kind(f"{name}.tif", holds, "RGB", body, space=space)
    lab = smooth(3).view(np.int8)  # L* from 0 to 255, a* and b* with a sign
    lab[..., 1:] = lab[..., 1:] // 8
    body = tiff_file(lab.view(np.uint8), "cielab")
    yield Kind("lab-8.tif", "L*a*b*, 8 bits", "RGB", body, space="Lab")
    pages = np.stack([samples(3, 8, seed) for seed in range(4)])
    note = "first of 4 frames"
    yield Kind("pages.tif", "RGB, 4 pages", "RGB", tiff_file(pages, rgb), note=note)


def dimmed(channels: int, bits: int) -> Samples:
    """Samples that were multiplied by their alpha, which is never below a half."""
    pixels = samples(channels, bits).astype(np.uint32)
    full = (1 << bits) - 1
    pixels[..., -1] |= full // 2 + 1
    pixels[..., :-1] = pixels[..., :-1] * pixels[..., -1:] // full
    return pixels.astype(samples(channels, bits).dtype)


def refused() -> Iterator[Kind]:
    black, rgb = "minisblack", "rgb"
    unknown = "nothing in it says which one is white"
    for name, holds, kind, channels, why in (
        ("signed-8", "grey, signed 8 bits", "i1", 1, unknown),
        ("signed-16", "grey, signed 16 bits", "i2", 1, unknown),
        ("signed-32", "grey, signed 32 bits", "i4", 1, unknown),
        ("unsigned-32", "grey, unsigned 32 bits", "u4", 1, unknown),
        ("float-32", "grey, 32-bit float", "f4", 1, unknown),
        ("float-16", "grey, 16-bit float", "f2", 1, "1 x 16 bits, float"),
        ("float-64", "grey, 64-bit float", "f8", 1, "1 x 64 bits, float"),
        ("rgb-float-32", "RGB, 32-bit float", "f4", 3, "3 x 32 bits, float"),
        ("grey-alpha-16", "grey with alpha, 16 bits", "u2", 2, "2 x 16 bits, unsigned"),
    ):
        pixels = samples(channels, 8).astype(kind)
        more = {"planarconfig": "contig", "extrasamples": ["unassalpha"]} if channels == 2 else {}
        body = tiff_file(pixels, rgb if channels == 3 else black, **more)
        yield Kind(f"{name}.tif", holds, "refused", body, note=why)
    planes = np.moveaxis(samples(3, 16), 2, 0)
    body = tiff_file(planes, rgb, planarconfig="separate")
    words, why = "RGB, 16 bits, planar, uncompressed", "separate planes"
    yield Kind("rgb-16-planar.tif", words, "refused", body, note=why)


KINDS = [
    replace(kind, file=f"{Path(kind.file).suffix[1:]}-{kind.file}")
    for kind in (*pngs(), *jpegs(), *webps(), *tiffs(), *refused())
]


# --- the page ------------------------------------------------------------------------------------

CONTAINERS = {"PNG": (".png",), "JPEG": (".jpg",), "WebP": (".webp",), "TIFF": (".tif",)}


def page() -> str:
    """docs/formats.md: its words as they are, its tables from `KINDS`."""
    words = PAGE.read_text("utf-8").split("## Kind by kind")[0]
    return words + "## Kind by kind\n\n" + "\n".join(tables())


def tables() -> Iterator[str]:
    yield "Each line is a file of `tests/data/images/`. A test compares its pixels with those of an"
    yield "independent decoder. `python tests/kinds.py` writes the files and these tables."
    for container, suffixes in CONTAINERS.items():
        yield f"\n### {container}\n"
        yield "| the file holds | it becomes | note | tested with |"
        yield "|---|---|---|---|"
        for kind in KINDS:
            if kind.file.endswith(suffixes):
                holds = kind.holds.replace(" 1 bits", " 1 bit")
                yield f"| {holds} | {kind.becomes} | {kind.note} | {kind.file} |"
    yield ""


def main() -> None:
    for kind in KINDS:
        with atomic(kind.path) as file:
            file.write(kind.body)
    with atomic(PAGE) as file:
        file.write(page().encode())


if __name__ == "__main__":
    main()
