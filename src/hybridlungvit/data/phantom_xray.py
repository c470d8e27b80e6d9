"""From a synthetic child to its X-ray: heart, skeleton, vessels, opacities, exposure.

Coordinates and layers are those of `phantom_anatomy`.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hybridlungvit.data.phantom_anatomy import (
    SIDES,
    Child,
    Frame,
    Layer,
    Pose,
    coarsely,
    elbow,
    lung_roof,
    lungs,
    profile,
    shoulder_joint,
    smooth,
    soft_tissue,
)


def mediastinum(child: Child, pose: Pose, frame: Frame) -> Layer:
    """Heart, great vessels and thymus as the share (0..1) of the air they displace."""
    u, v = frame.grid
    shift = child.domes[1] - 0.86 + pose.breath
    s, t = child.heart * child.chest / 0.68, child.thymus
    left = profile(
        v - shift,
        (-0.2, 0.05, 0.17, 0.25, 0.34, 0.45, 0.58, 0.70, 0.80, 0.90, 1.0),
        (t, t, t, t + 0.02, t, 0.26 * s, 0.36 * s, 0.44 * s, 0.46 * s, 0.42 * s, 0.2),
    )
    right = profile(
        v - shift,
        (-0.2, 0.05, 0.3, 0.42, 0.55, 0.68, 0.82, 1.0),
        (0.9 * t, 0.9 * t, 0.9 * t, 0.16 * s, 0.22 * s, 0.24 * s, 0.2 * s, 0.15),
    )
    u = u - 1.5 * pose.turn
    # The great vessels fade out towards the neck.
    return smooth(np.minimum(left - u, right + u), 0.055) * (0.55 + 0.45 * smooth(v - 0.25, 0.4))


def spine(child: Child, pose: Pose, frame: Frame) -> Layer:
    """Vertebral bodies with their discs, pedicles and spinous processes."""
    u, v = frame.grid
    x = np.abs(u - 0.3 * pose.turn)
    beat = np.cos(v * (2 * np.pi / child.vertebra))
    column = smooth(0.078 + 0.006 * np.abs(beat) - x, 0.02)
    x *= 1 / 0.017
    body, disc = np.clip(beat, 0, None), np.clip(-beat, 0, None)
    pedicles, process = np.exp(-np.square(x - 3)) * body, np.exp(-np.square(x)) * disc
    return column * (0.72 + 0.14 * np.tanh(3 * beat) + 0.3 * pedicles + 0.2 * process)


def ribs(child: Child, pose: Pose, frame: Frame) -> Layer:
    """Hoops that fall from back to front; their flanks make the rib cage's bright outline."""
    levels = np.arange(11)
    start = -0.04 + child.rib_pitch * levels
    drop = child.rib_drop * (0.5 + 0.06 * levels)
    layers = np.zeros_like(frame.grid[0])
    for back, front, weight in ((0.08, 1.65, 1.0), (1.5, 2.3, 0.8)):
        theta = np.linspace(back, front, 22)
        paths = []
        for side in SIDES:
            reach, apex = lung_roof(child, side)
            height = np.clip(1 - start - 0.5 * drop, 0, 1)
            hoop = apex + (reach - apex) * np.sqrt(1 - height**2) + 0.01 + side * pose.turn
            x = side * (0.05 + (hoop[:, None] - 0.05) * np.sin(theta))
            y = start[:, None] + 0.5 * drop[:, None] * (1 - np.cos(theta))
            hump = 0.04 * np.sin(np.minimum(2 * theta, np.pi))
            paths.append(np.stack([x, y - hump], -1))
        radius = child.rib_radius * np.tile(np.linspace(0.85, 1.1, len(levels)), 2)[:, None]
        layers += weight * frame.tubes(np.concatenate(paths), radius, 0.6)
    return layers


def shoulder_girdle(child: Child, pose: Pose, frame: Frame) -> Layer:
    """Clavicles, scapulae and humeri."""
    t = np.linspace(0, 1, 20)
    clavicles, humeri, blades = [], [], []
    # The joint's head tapers into the shaft.
    shaft = np.sqrt(np.minimum(1, 10 * t)) * (0.043 + 0.04 * np.exp(-np.square(t / 0.12)))
    for side in SIDES:
        joint = np.array(shoulder_joint(child, pose, side))
        sternum = np.array([side * 0.08 + pose.turn, 0.07])
        bow = np.stack([0 * t, -0.05 * np.sin(1.6 * np.pi * t)], -1)
        acromion = joint - [side * 0.03, 0.09]
        clavicles.append(sternum + t[:, None] * (acromion - sternum) + bow)
        humeri.append(joint + t[:, None] * (np.array(elbow(child, pose, side)) - joint))
        tip = np.array([side * (child.chest - 0.04), 0.40 + joint[1]])
        blades.append(joint - [side * 0.08, 0] + t[:, None] * (tip - joint))
    bones = frame.tubes(np.array(clavicles), 0.022) + frame.tubes(np.array(humeri), shaft)
    return bones + 0.6 * frame.tubes(np.array(blades), 0.06, 0.7)


def vessels(child: Child, pose: Pose, frame: Frame, prominence: float) -> Layer:
    """Hilar shadows with branches that thin out towards the periphery."""
    rng = np.random.default_rng(child.vessels)
    count, steps = 40, 10
    side = np.where(np.arange(count) % 2, 1, -1)
    bends = rng.normal(0, 0.16, (count, steps)).cumsum(1)
    heading = rng.uniform(-1.25, 1.35, count)[:, None] + bends
    length = rng.uniform(0.012, 0.045, count)[:, None] * child.chest / 0.7
    roots = np.stack([0.13 + 0.05 * rng.uniform(size=count), rng.normal(0.48, 0.06, count)], -1)
    x = roots[:, :1] + np.cumsum(np.cos(heading) * length, 1)
    y = roots[:, 1:] + np.cumsum(np.sin(heading) * length, 1)
    paths = np.stack([side[:, None] * x + pose.turn, y], -1)
    tree = frame.tubes(paths, rng.uniform(0.003, 0.009, count)[:, None], 0.2)
    u, v = frame.grid
    hila = np.square((np.abs(u - pose.turn) - 0.2) / 0.1) + np.square((v - 0.47) / 0.15)
    return prominence * (0.55 * tree + 0.6 * np.exp(-hila))


def opacity(child: Child, frame: Frame, subtype: str, contrast: float, rng: Generator) -> Layer:
    """Share (0..1) of the air that is replaced by fluid, before it is confined to the lungs."""
    # A wide spread: some pneumonias are hard to see whatever the mean.
    strength = float(contrast) * rng.gamma(2.5, 1 / 2.5)
    if subtype == "normal" or strength == 0:
        return np.zeros_like(frame.grid[0])
    focal = subtype == "bacteria"
    pattern = consolidation(child, frame, rng) if focal else interstitial(frame, rng)
    return 1 - np.exp(-strength * pattern)


def consolidation(child: Child, frame: Frame, rng: Generator) -> Layer:
    """One or two lobar patches with ragged edges."""
    u, v = frame.grid
    ragged = 0.35 * frame.mottle(rng, 0.09) + 0.2 * frame.mottle(rng, 0.035)
    pattern = np.zeros_like(u)
    for _ in range(1 + (rng.uniform() < 0.3)):
        side = int(rng.choice(SIDES))
        level = float(rng.choice((0.28, 0.52, 0.74))) + rng.normal(0, 0.04)
        reach = child.chest * (1 - (1 - level) ** 2) ** 0.5
        x, radius = side * rng.uniform(0.3, 0.78) * reach, rng.uniform(0.11, 0.24)
        distance = np.square((u - x) / (radius * rng.uniform(0.8, 1.3)))
        distance += np.square((v - level) / radius)
        pattern = np.maximum(pattern, smooth(0.8 - distance + ragged, 1.6))
    return pattern


def interstitial(frame: Frame, rng: Generator) -> Layer:
    """Bilateral haze around the hila, patchy and streaky."""
    u, v = frame.grid
    patchy = np.clip(0.55 + 0.45 * frame.mottle(rng, 0.12), 0, None)
    streaky = np.clip(0.5 + 0.5 * frame.mottle(rng, 0.03), 0, None)
    spread, tilt = rng.uniform(0.18, 0.34), rng.normal(0, 0.25)
    hila = np.square((np.abs(u) - 0.26) / spread) + np.square((v - 0.55) / (1.3 * spread))
    uneven = np.clip(1 + tilt * np.sign(u), 0, None)
    return 0.75 * uneven * np.exp(-hila) * (0.6 * patchy + 0.4 * streaky)


def project(
    child: Child, pose: Pose, frame: Frame, fluid: Layer, rng: Generator
) -> tuple[Layer, NDArray[np.bool_]]:
    """Sum of the layers, about 0 outside the body and 1 behind the spine, and the lung mask."""
    u, v = frame.grid
    body = coarsely(soft_tissue, child, pose, frame)
    inside = np.minimum(2 * body, 1)
    heart = coarsely(mediastinum, child, pose, frame)
    air, mask = lungs(child, pose, frame)
    # Healthy lungs differ too: in aeration, from side to side, top to bottom, and in their hila.
    air *= rng.uniform(0.8, 1.1) + rng.normal(0, 0.12) * u + rng.normal(0, 0.15) * (v - 0.5)
    air *= (1 + 0.06 * frame.mottle(rng, 0.25)) * (1 - 0.75 * heart) * (1 - fluid)
    air *= 1 - 0.3 * vessels(child, pose, frame, rng.gamma(9, 1 / 9))
    density = 0.70 * body + 0.05 * heart * inside - 0.42 * air
    abdomen = smooth(v - 0.95, 0.5)
    density += 0.08 * abdomen * inside
    bones = 0.16 * spine(child, pose, frame) + 0.17 * shoulder_girdle(child, pose, frame)
    bones += 0.15 * (1 - 0.5 * abdomen) * ribs(child, pose, frame)
    density += (child.bone * bones + 0.012 * frame.mottle(rng, 0.06)) * inside
    density += folds(child, frame, rng) * inside
    density -= stomach(child, frame, rng) + trachea(pose, frame)
    return np.clip(density, 0, None), mask


def folds(child: Child, frame: Frame, rng: Generator) -> Layer:
    """Shadows of skin, clothes or muscles upon the chest that could pass for an opacity."""
    u, v = frame.grid
    depth = rng.uniform(0, 0.09) * (rng.uniform() < 0.5)
    x, y = rng.choice(SIDES) * rng.uniform(0.4, 1.2) * child.chest, rng.uniform(0, 1)
    width, height = rng.uniform(0.1, 0.3, 2).tolist()
    far = np.square((u - float(x)) / width) + np.square((v - y) / height)
    return depth * smooth(1 - far, rng.uniform(0.4, 1.6))


def stomach(child: Child, frame: Frame, rng: Generator) -> Layer:
    """Gas below the left diaphragm, in half of the images."""
    u, v = frame.grid
    size, x = rng.uniform(0.06, 0.16), rng.uniform(0.2, 0.5) * child.chest
    y = child.domes[1] + 0.12 + size + rng.uniform(0, 0.1)
    depth = rng.uniform(0, 0.25) * (rng.uniform() < 0.5)
    return depth * smooth(1 - np.square((u - x) / (1.4 * size)) - np.square((v - y) / size), 0.5)


def trachea(pose: Pose, frame: Frame) -> Layer:
    u, v = frame.grid
    shaft = np.exp(-np.square((u - 1.3 * pose.turn + 0.01) / 0.035))
    return 0.08 * shaft * smooth(0.3 - v, 0.2)


def expose(density: Layer, frame: Frame, rng: Generator) -> NDArray[np.uint8]:
    """Detector and display: gradient, blur, noise, tone curve and the markers."""
    u, v = frame.grid
    down = v - 0.5
    lit = density * (1 + rng.normal(0, 0.05) * u + rng.normal(0, 0.06) * down)
    lit -= rng.uniform(0, 0.12) * (u * u + down * down) * (density > 0.02)
    lit = cv2.GaussianBlur(lit, (0, 0), 0.2 + rng.uniform(0.2, 0.7) * frame.cols / 320)
    grain = rng.standard_normal(lit.shape, dtype=np.float32)
    grain = 0.5 * grain + cv2.GaussianBlur(grain, (0, 0), 0.8)
    quantum, readout = rng.uniform(0.006, 0.03), rng.uniform(0.001, 0.006)
    # Fewer photons arrive behind the denser parts.
    lit += grain * (quantum * np.clip(lit, 0, 1.2) + readout)
    gain, gamma = rng.uniform(0.95, 1.3), float(np.exp(rng.normal(0, 0.16)))
    fog = rng.uniform(0, 0.03)
    shown = fog + (1 - fog) * np.tanh(gain * np.clip(lit, 0, None) ** gamma)
    return mark(np.clip(shown * (255 / 0.88), 0, 255).astype(np.uint8), rng)


def mark(image: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Burn in the side marker and, at times, the tube voltage."""
    rows, cols = image.shape
    size = rows * rng.uniform(0.04, 0.09)
    grey = int(rng.integers(200, 256))
    right = rng.uniform() < 0.88
    x = int(cols * (rng.uniform(0.02, 0.09) if right else rng.uniform(0.88, 0.95)))
    y = int(rows * rng.uniform(0.1, 0.5))
    voltage = f"KV{rng.integers(50, 75)}" if rng.uniform() < 0.25 else ""
    for text, origin, height in (
        ("R" if right else "L", (x, y), size),
        (voltage, (int(0.86 * cols), int(0.97 * rows)), 0.6 * size),
    ):
        weight = max(1, round(height / 12))
        cv2.putText(image, text, origin, 0, height / 22, grey, weight, cv2.LINE_AA)
    return image
