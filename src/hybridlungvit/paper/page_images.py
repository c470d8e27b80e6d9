"""Small pictures of the test images, with lungs and heat, for the results page."""

import base64
import io
from typing import Any

import matplotlib as mpl
import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image

from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.predictions import scores_on
from hybridlungvit.io import file_sha256, read_json
from hybridlungvit.paper.galleries import read_cases
from hybridlungvit.paths import Layout

SIDE = 96  # pixels
MANY = 1000  # images, from which on pictures get smaller, so that all together stay as large
DETAIL = 48  # cells a side that an outline is drawn from
STRENGTH = 0.7  # opacity of the hottest pixels


def pictures(study: Study, layout: Layout, paths: list[str]) -> dict[str, Any]:
    """Thumbnails and lung outlines of the images ``paths``, and the reference's heat maps.

    ``thumbnails`` are JPEGs and ``heat`` PNGs by index of their image, both in base64; ``outlines``
    are SVG paths on a square of side ``DETAIL``. What is not there, as in a clone that has no
    images, or was made from another manifest or by another model, is empty.
    """
    empty: dict[str, Any] = {"thumbnails": [], "outlines": [], "detail": DETAIL, "heat": {}}
    if layout.gradcam(study.reference).is_file():
        cases = read_cases(layout.gradcam(study.reference))
        index = {path: i for i, path in enumerate(paths)}
        table, scores = scores_on(study, study.reference, layout)
        scored = dict(zip(table.path, scores[0].tolist(), strict=True))
        told = dict(zip(cases["path"].tolist(), cases["probability"].tolist(), strict=True))
        if all(scored.get(path) == value for path, value in told.items()):
            empty["heat"] = {
                index[path]: _coded(_coloured(heat.astype(float)), "PNG")
                for path, heat in zip(cases["path"].tolist(), cases["heat"], strict=True)
                if path in index
            }
    stored = (layout.images, layout.masks, layout.cache_record)
    if not all(path.is_file() for path in stored):
        return empty
    if read_json(layout.cache_record)["manifest_sha256"] != file_sha256(layout.manifest):
        return empty
    manifest = read_manifest(layout.manifest)
    rows = manifest.reset_index().set_index("path").loc[paths, "index"].to_numpy()
    images, masks = (np.load(path, mmap_mode="r") for path in stored[:2])
    side = images.shape[1]
    bits = np.unpackbits(masks[rows], axis=1, count=side * side).reshape(-1, side, side)
    small = min(side, int(SIDE * min(1, MANY / len(paths)) ** 0.5))
    return empty | {
        "thumbnails": [_coded(_resized(images[row], small), "JPEG", quality=60) for row in rows],
        "outlines": [_outline(mask) for mask in bits],
    }


def _resized(image: NDArray[np.uint8], side: int) -> Image.Image:
    return Image.fromarray(image).resize((side, side), Image.Resampling.BOX)


def _coloured(heat: NDArray) -> Image.Image:
    """Heat (S, S) in [0, 1] in colours whose opacity follows it."""
    colours = mpl.colormaps["inferno"](heat)  # (S, S, 4)
    colours[..., 3] = STRENGTH * heat
    return Image.fromarray(np.round(255 * colours).astype(np.uint8)).resize((SIDE, SIDE))


def _coded(image: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return base64.b64encode(stream.getvalue()).decode()


def _outline(mask: NDArray[np.uint8]) -> str:
    """The border of a mask (S, S) as an SVG path on a square of side ``DETAIL``."""
    share = np.pad(np.asarray(_resized(255 * mask, DETAIL)), 1)
    lines = contour_generator(z=share.astype(float)).lines(127.5)
    parts = [np.round(line - 0.5, 1)[::2] for line in lines if len(line) > 3]
    return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in line) + "Z" for line in parts)
