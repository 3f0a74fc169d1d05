"""Draw the five sample images of the course: each pixel comes from formulas and fixed seeds.

===========  ===========  ====  ==============================================================
file         size         mode  what a blur does to it
===========  ===========  ====  ==============================================================
bubbles.png   496 x 608   RGBA  alpha is blurred like a colour: outlines soften, glints fade
chart.png    1198 x 1556  L     whatever is finer than the kernel turns grey
dunes.png    1470 x 614   RGB   ripples vanish, crests soften, the broad light and shade stay
glass.png    1108 x 1124  RGB   dark sharp edges bleed into flat, saturated colour
night.png    2048 x 1536  RGB   each star takes the kernel's shape; the film grain averages out
===========  ===========  ====  ==============================================================
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studyguide.machinery.files import atomic

Field = NDArray[np.float64]
Pixels = NDArray[np.uint8]

# Capitals as polylines of (x, y) digits on a grid 4 wide and 6 high, y downwards.
STROKES = """
A:0602204246/0444 B:003041423303/334445360600 C:4130100105163645 D:00304145360600 E:40000646/0333
F:400006/0333 G:41301001051636454323 H:0006/4046/0343 I:1030/2026/1636 K:0006/0313/401346 L:000646
M:0600234046 N:06004640 O:103041453616050110 P:06003041423303 R:06003041423303/2346 T:0040/2026
S:413010010213334445361605 U:000516364540 V:002640 W:0016233640 X:0046/4006 Y:002340/2326 .:2626
"""
GLYPHS = dict(entry.split(":") for entry in STROKES.split())
TEXT = """EVERY PIXEL BECOMES THE WEIGHTED MEAN OF ITS NEIGHBOURS. THE NEAR ONES COUNT MOST. WHAT IS
FINER THAN THE KERNEL TURNS GREY. WHAT IS BROADER STAYS ALMOST AS IT WAS. """.replace("\n", " ")
BUBBLES = """330 120 74  96 96 40  196 330 150  412 300 50  66 520 46  352 478 92  216 552 34
446 196 20  196 60 17  456 570 22  36 188 15"""  # x, y and radius of each
SAND = "0 3b2440 .25 8a4242 .55 d9824a .85 f7c77e 1 ffe9b8"
DUSK = "-.01 4a5a8c .06 8f7fa0 .15 e3a99c .22 f6d3ae"
PANES = "0 fff3c0 .1 ffc53a .2 f47b20 .36 d42a3c .5 a8207c .6 4f2fb0 .8 146cb8 1 2fb5b5 1.2 c1e7d7"
NIGHTFALL = "0 03060f .3 081430 .46 10304f .56 2a667f .63 7fb0a6 .68 e8d5a4"
GALAXY = "0 1c3a78 .35 6a5ab0 .6 c890b8 .85 ffdcb8"
STARLIGHT = "0 ffc890 .5 ffffff 1 a8c4ff"
RIDGES = ((1010, "4a7a8e"), (1080, "31596f"), (1140, "1e3d53"), (1190, "10263c"))


def uniform(seed: int, *shape: int) -> Field:
    """Random numbers in [0, 1), the same on every machine."""
    return np.random.Generator(np.random.PCG64(seed)).random(shape)


def grid(width: int, height: int) -> tuple[Field, Field]:
    """Pixel centres: x (height, width) and y (height, width)."""
    y, x = np.mgrid[0.5:height, 0.5:width]
    return x, y


def around(x: float, y: float, reach: int) -> tuple[slice, slice]:
    """Rows and columns within `reach` pixels of a point; slicing cuts them off at the far edges."""
    rows, columns = (slice(max(int(t) - reach, 0), max(int(t) + reach, 0)) for t in (y, x))
    return rows, columns


def smooth(low: float, high: float, value: Field) -> Field:
    """Rise from 0 at `low` to 1 at `high` without a kink."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def cover(distance: Field) -> Field:
    """Share of a pixel inside an edge that lies `distance` pixels away (negative: inside)."""
    return np.clip(0.5 - distance, 0, 1)


def mix(below: Field, above: Field | float, share: Field) -> Field:
    """Lay the colour `above` over `below` with the opacity `share` (height, width)."""
    return below + (above - below) * share[..., None]


def colour(code: str) -> Field:
    """Turn ``"ff8000"`` into red, green and blue from 0 to 1."""
    return np.array([int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)])


def ramp(value: float | Field, palette: str) -> Field:
    """Look `value` up in a palette of positions and colours: ``"0 000000 0.5 ff8000 1 ffffff"``."""
    words = palette.split()
    at, tones = [float(word) for word in words[::2]], np.array([colour(w) for w in words[1::2]])
    return np.stack([np.interp(value, at, channel) for channel in tones.T], axis=-1)


def perlin(x: Field, y: Field, slope_x: Field, slope_y: Field) -> Field:
    """Gradient noise (Perlin 1985) from the slopes at 256 x 256 lattice points, about [-1, 1]."""
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    u, v = x - column, y - row

    def corner(i: int, j: int) -> Field:
        at = ((row + j) & 255) * 256 + ((column + i) & 255)
        return slope_x[at] * (u - i) + slope_y[at] * (v - j)

    across, down = (t * t * t * (t * (t * 6 - 15) + 10) for t in (u, v))
    top = corner(0, 0) * (1 - across) + corner(1, 0) * across
    bottom = corner(0, 1) * (1 - across) + corner(1, 1) * across
    return 1.4 * (top * (1 - down) + bottom * down)


def noise(x: Field, y: Field, seed: int, octaves: int = 1) -> Field:
    """Perlin noise of size 1, plus `octaves` - 1 more, each twice as fine and half as strong."""
    total = np.zeros(x.shape)
    for i in range(octaves):
        angle = 2 * np.pi * uniform(seed + i, 256 * 256)
        slopes = np.cos(angle), np.sin(angle)
        for top in range(0, len(x), 32):  # in strips that fit into the cache
            at = np.s_[top : top + 32]
            total[at] += perlin(x[at] * 2**i, y[at] * 2**i, *slopes) / 2**i
    return total


def quantise(image: Field, grain: float = 0.5) -> Pixels:
    """Round to 8 bits with `grain` levels of noise, which hides banding.

    The odd offset moves exact halves off the rounding edge: a last-bit difference between two
    maths libraries then changes no pixel.
    """
    level = image * 255 + grain * (2 * uniform(1, *image.shape) - 1)
    return np.floor(np.clip(level, 0, 255) + 0.500001).astype(np.uint8)


def bubble(radius: int, seed: int) -> tuple[Field, Field]:
    """Colour (H, W, 3) by thin-film interference, and opacity (H, W), of one soap bubble."""
    u, v = (t / radius - 1 for t in grid(2 * radius, 2 * radius))
    r = np.hypot(u, v)
    facing = np.sqrt(np.clip(1 - r * r, 0, 1))
    swirl = 0.5 * noise(u * 0.9 + 9, v * 0.9 + 9, seed, 2)
    film = 470 + 130 * v + 100 * noise(u * 0.7 + swirl, v * 1.3 + 20 + swirl, seed + 5)
    path = 2 * 1.33 * film * (0.35 + 0.65 * facing)  # nanometres
    tint = 0.55 - 0.45 * np.cos(2 * np.pi * path[..., None] / [640.0, 540.0, 450.0])
    tint = mix(tint, colour("4a3fa8"), 0.6 * smooth(0.93, 1, r))
    opacity = 0.13 + 0.35 * smooth(0.35, 0.95, r) + 0.42 * smooth(0.88, 1, r)
    for side, size, light in ((-1, 0.62, 0.95), (1, 0.40, 0.7)):  # a window and its mirror image
        turn = np.arctan2(side * (u - v), side * (u + v))
        pane = smooth(size, size - 0.12, np.abs(turn)) * smooth(0.015, 0.075, np.abs(turn - 0.08))
        glint = light * pane * smooth(0.13, 0.07, np.abs(r - 0.74) / (1.6 * size))
        tint, opacity = mix(tint, 1, glint), opacity + (1 - opacity) * glint
    return tint, opacity * cover((r - 1) * radius + 0.5)


def bubbles() -> Pixels:
    """Soap bubbles on a transparent ground."""
    tint, alpha = np.zeros((608, 496, 3)), np.zeros((608, 496))
    for i, (x, y, radius) in enumerate(np.array(BUBBLES.split(), int).reshape(-1, 3)):
        at = around(x, y, radius)
        above, share = bubble(radius, 40 + 10 * i)
        tint[at] = mix(tint[at], above, share)
        alpha[at] += (1 - alpha[at]) * share
    # Light grey lies under full transparency, so that a blur draws no dark rim.
    tint = np.where(alpha[..., None] > 0, tint / np.maximum(alpha, 1e-9)[..., None], 0.9)
    return quantise(np.dstack([tint, alpha]), grain=0)


def stroke(page: Field, a: complex, b: complex, pen: float, ink: float = 1) -> None:
    """Draw a line between the points `a` and `b` (x + 1j y) with a round pen `pen` pixels wide."""
    middle, span = (a + b) / 2, b - a
    at = around(middle.real, middle.imag, int(abs(span) / 2 + pen) + 2)
    y, x = np.mgrid[at] + 0.5
    point = x + 1j * y - a
    along = np.clip((point * span.conjugate()).real / max(abs(span) ** 2, 1e-9), 0, 1)
    page[at] += (ink - page[at]) * cover(np.abs(point - along * span) - pen / 2)


def write(page: Field, text: str, top: float) -> float:
    """Set one line of capitals 1080 pixels wide; return their height."""
    size = 1080 / (len(text) - 0.18)
    for i, letter in enumerate(text):
        corner = 59 + (i + 0.075) * size + 1j * top
        for line in GLYPHS.get(letter, "").split("/"):
            dots = [int(x) + 1j * int(y) for x, y in zip(line[::2], line[1::2], strict=True)]
            for a, b in pairwise(dots):
                stroke(page, corner + a * size / 6, corner + b * size / 6, max(0.15 * size, 1))
    return size


def bars(t: Field, period: int) -> Field:
    """Share of ink in the pixels around `t` under black and white bars, from 8 samples each."""
    samples = t[..., None] + period // 4 + (np.arange(8) - 3.5) / 8
    share: Field = np.mean(samples % period < period / 2, axis=-1)
    return share


def chart() -> Pixels:
    """Patterns from coarse to finer than the kernel, in ink on paper."""
    page = np.zeros((1556, 1198))  # share of ink
    write(page, "GAUSSIAN BLUR", 59)
    page[180:183, 59:1139] = 1
    x, y = grid(510, 510)
    r, angle = np.hypot(x - 255, y - 255), np.arctan2(y - 255, x - 255)
    star = np.clip(0.5 + r / 36 * np.sin(36 * angle), 0, 1)
    zones = 0.5 + 0.5 * np.cos(0.4 * np.pi / 255 * r * r)  # up to 0.4 cycles per pixel at the rim
    page[216:726, 59:569], page[216:726, 629:1139] = star * cover(r - 254), zones * cover(r - 254)
    x, y = grid(96, 96)
    for i, period in enumerate((32, 24, 16, 12, 8, 6, 4, 3, 2)):
        across = slice(59 + 123 * i, 155 + 123 * i)
        page[770:866, across], page[874:970, across] = bars(x, period), bars(y, period)
    for i, cell in enumerate((24, 12, 8, 4, 2, 1)):
        page[997:1093, 59 + 123 * i : 155 + 123 * i] = (x // cell + y // cell) % 2
    page[997:1093, 797:1139] = 1
    for left, size in ((850, 48), (909, 28), (954, 18), (991, 12), (1024, 8), (1056, 5), (1084, 3)):
        stroke(page, left + 1045j, left + 1045j, size, ink=0)
    page[1045, 1109] = 0  # one pixel: the blur shows its kernel here
    ruler = grid(1080, 40)[0]
    page[1120:1160, 59:1139], page[1160:1200, 59:1139] = ruler / 1080, ruler // 67.5 / 15
    top, text = 1245.0, TEXT * 5
    for size in (30, 24, 19, 15, 12, 9, 7):
        line = text[: 1080 // size].rsplit(" ", 1)[0]
        text = text[len(line) + 1 :]
        top += 2.0 * write(page, line, top)
    return quantise(0.955 - 0.87 * page, grain=0)


def sand(x: Field, z: Field) -> Field:
    """Height of the dunes at `x` to the right and `z` ahead: long windward, short lee slopes."""
    phase = 0.105 * x + 0.075 * z + 0.55 * noise(x * 0.05 + 7, z * 0.05 + 3, 7, 3)
    t = phase - np.floor(phase)
    profile = np.where(t < 0.62, smooth(0, 1.24, t) * 2, (1 - t) / 0.38)
    swell = 1.5 + noise(x * 0.06, z * 0.06, 21)
    return profile * swell + 0.3 * noise(x * 0.1, z * 0.1, 33, 3)


def dunes() -> Pixels:
    """A desert at dusk in perspective."""
    width, height, fine, focus = 1470, 614, 3, 900.0
    depth = 2.5 * 44 ** np.linspace(0, 1, 1700) ** 0.7
    fan, z = np.meshgrid((np.arange(width) + 0.5 - width / 2) / focus, depth)
    x = fan * z
    ground = sand(x, z)
    slope_x = np.gradient(ground, axis=1) * focus / z
    slope_z = np.gradient(ground, axis=0) / np.gradient(z, axis=0) - fan * slope_x
    # The sun is low on the left: sand below the highest ray that passes its left is in shadow.
    ray = ground + 0.28 * x
    lit = smooth(0.25, 0, np.maximum.accumulate(ray, axis=1) - ray)
    ripple = np.cos(26 * x + 5 * z + 5 * noise(x * 0.35, z * 0.35, 55, 2))
    slope_x += 0.13 * ripple * smooth(24, 5, z) * smooth(-0.25, 0.1, slope_x)
    light = (0.86 * slope_x - 0.36 * slope_z + 0.36) / np.sqrt(1 + slope_x**2 + slope_z**2)
    tone = ramp(np.clip(light, 0, 1) * (0.15 + 0.85 * lit), SAND)
    tone = mix(tone, colour("e8b9a0"), 0.8 * smooth(10, 110, z))
    # Each column of the picture looks up the first sand that reaches its line of sight.
    skyline = np.maximum.accumulate((ground - 4.4) / z, axis=0)
    sight = (200 - (np.arange(height * fine) + 0.5) / fine) / focus  # its slope, per row
    column, row = np.meshgrid(np.arange(width) + 0.5, 200 - sight * focus)
    moon = cover(np.hypot(column - 1130, row - 84) - 22)
    picture = mix(ramp(row / focus, DUSK), colour("fbeed6"), 0.85 * moon)
    for c in range(width):
        at = np.interp(sight, skyline[:, c], np.arange(depth.size) - 1.5)
        k = np.clip(at.astype(int), 0, depth.size - 2)
        seen = mix(tone[k, c], tone[k + 1, c], at - k)
        picture[:, c] = np.where((sight > skyline[-1, c])[:, None], picture[:, c], seen)
    return quantise(picture.reshape(height, fine, width, 3).mean(axis=1))


def glass() -> Pixels:
    """A leaded window: the Voronoi cells of a sunflower."""
    x, y = grid(1108, 1124)
    n = np.arange(800)
    radius, angle = 8.6 * (n + 0.3) ** 0.68, n * np.pi * (3 - 5**0.5)  # the spiral of a sunflower
    sx, sy = 554 + radius * np.cos(angle), 562 + radius * np.sin(angle)
    near, owner, edge = np.full(x.shape, 1e9), np.zeros(x.shape, int), np.full(x.shape, 1e9)
    windows = [around(a, b, 75) for a, b in zip(sx, sy, strict=True)]
    for i, at in enumerate(windows):  # Voronoi cells: the nearest seed owns the pixel ...
        square = (x[at] - sx[i]) ** 2 + (y[at] - sy[i]) ** 2
        owner[at] = np.where(square < near[at], i, owner[at])
        near[at] = np.minimum(square, near[at])
    for i, at in enumerate(windows):  # ... and the lead follows the borders between two seeds
        square = (x[at] - sx[i]) ** 2 + (y[at] - sy[i]) ** 2
        apart = np.hypot(sx[i] - sx[owner[at]], sy[i] - sy[owner[at]])
        border = (square - near[at]) / (2 * np.maximum(apart, 1e-9))
        edge[at] = np.where(owner[at] == i, edge[at], np.minimum(edge[at], border))
    petals = 0.05 * np.cos(6 * angle - radius / 70)
    panes = ramp(radius / 640 + petals + 0.07 * uniform(11, 800) - 0.035, PANES)
    panes *= 0.86 + 0.26 * uniform(12, 800)[:, None]
    light = 0.78 + 0.36 * smooth(0, 1, edge / (8 + 0.03 * radius[owner]))
    light += 0.18 * noise(x * 0.012, y * 0.03, 5, 4)
    lead = 1.8 + 0.0055 * radius[owner]
    metal = ramp(1 - edge / lead, "0.3 101113 1 4a4e57")
    return quantise(mix(panes[owner] * light[..., None], metal, cover(edge - lead)))


def heavens(x: Field, y: Field) -> Field:
    """Colour (H, W, 3) of an evening sky with the Milky Way; more stars where it glows."""
    along, across = 0.80 * (x - 1250) - 0.60 * (y - 430), 0.60 * (x - 1250) + 0.80 * (y - 430)
    bend = noise(along / 700, across / 700, 100, 3)
    band = np.exp(-((across / 235 + 0.35 * bend) ** 2)) * (0.75 + 0.35 * np.cos(along / 700))
    u, v = along / 260 + 0.4 * bend, across / 185 + 0.5 * bend
    cloud = noise(u, v, 110, 6)
    rift = noise(u + 5, 1.6 * v, 120, 6) + 0.55 * np.exp(-((across / 90 + 0.7 * bend) ** 2))
    glow = band * np.clip(0.7 + 0.6 * cloud, 0, 2) * (1 - 0.8 * smooth(0.1, 0.75, rift))
    glow *= smooth(1000, 480, y)
    hue = ramp(0.35 + 0.5 * cloud + 0.3 * band, GALAXY)
    sky = ramp(y / 1536, NIGHTFALL) + 0.75 * hue * glow[..., None]
    stars = uniform(8, 14000, 5) * (2048, 1150, 1, 1, 1)
    for (a, b, dice, _, keep), tint in zip(stars, ramp(stars[:, 3], STARLIGHT), strict=True):
        if keep < min(0.22 + 1.2 * glow[int(b), int(a)], 1.3 - b / 1150):
            power = 0.07 / (dice + 0.002) ** 0.6
            at = around(a, b, int(4 + 6 * power))
            square = (x[at] - a) ** 2 + (y[at] - b) ** 2
            halo = 0.06 * np.exp(-square / (2 + 9 * power * power))
            sky[at] += (power * (np.exp(-square / 1.3) + halo))[..., None] * tint
    return sky


def night() -> Pixels:
    """The sky over mountains, a forest and a lake."""
    shore = 1250
    x, y = grid(2048, shore)
    image = heavens(x, y)
    for i, (base, tone) in enumerate(RIDGES):
        t = x[:1] / (640 - 60 * i)
        peaks = 1 - 1.7 * np.abs(noise(t, 0 * t + 0.5 + i, 200 + 20 * i, 9))
        ridge = base - (150 - 20 * i) * peaks
        steep = np.sqrt(1 + np.gradient(ridge, axis=1) ** 2)
        mist = 0.6 * (1 - i / 5) * smooth(base - 120, base + 140, y)
        rock = mix(colour(tone), colour("7fa3b5"), mist)
        image = mix(image, rock, cover((ridge - y) / steep))
    for a, tall, bough in uniform(17, 420, 3):
        at = around(a * 2048, shore - 60, 60)
        down, step = y[at] - (shore - 30 - 90 * tall**2), 7 + 5 * bough
        half = 0.8 + 0.2 * down * (0.5 + 0.6 * (down / step - np.floor(down / step)))
        image[at] = mix(image[at], colour("050a12"), cover(np.abs(x[at] - a * 2048) - half))
    x, y = grid(2048, 1536 - shore)
    wave = (1 + y / 22) * noise(x / 90, y / 5, 300)
    mirrored = np.clip(shore - 1 - 2.2 * y + wave, 0, shore - 2)
    row, column = mirrored.astype(int), x.astype(int)
    lake = mix(image[row, column], image[row + 1, column], mirrored - row)
    lake = mix(lake * 0.8, colour("0a1a2c"), np.array(0.35))
    return quantise(np.concatenate([image, lake]), grain=3)


def save(path: Path, pixels: Pixels) -> None:
    """Write a PNG atomically."""
    with atomic(path) as file:
        Image.fromarray(pixels).save(file, format="PNG")


def same(path: Path, pixels: Pixels) -> bool:
    """Tell whether the file holds exactly these pixels; a missing or broken file does not."""
    try:
        with Image.open(path) as image:
            return np.array_equal(np.asarray(image), pixels)
    except (OSError, SyntaxError):  # Pillow raises SyntaxError for a damaged PNG chunk
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the five sample images of the course.")
    folder = Path(__file__).parent / "input"
    parser.add_argument("folder", nargs="?", type=Path, default=folder, help="where (%(default)s)")
    parser.add_argument("--check", action="store_true", help="draw nothing, compare the pixels")
    options = parser.parse_args()
    differing = 0
    for draw in (bubbles, chart, dunes, glass, night):
        path = options.folder / f"{draw.__name__}.png"
        if not options.check:
            save(path, draw())
        elif not same(path, draw()):
            differing += 1
            print(f"{path}: not what this script draws; run it without --check", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
