"""What travels with the weights of a trained model, so that predicting needs no other file."""

from typing import Annotated

from pydantic import Field

from hybridlungvit.config import Recipe
from hybridlungvit.configtypes import Section

KEY = "hybridlungvit"
"""Where it stands in the metadata of a safetensors file: as one entry, for their order is random
and checkpoints are compared by their bytes."""


class Description(Section):
    recipe: Recipe
    ranges: dict[str, tuple[float, float]]
    """Statistics of the training images, from where to where: see ``data/statistics.py``."""
    temperature: Annotated[float, Field(gt=0)]
    """Divides the logit of a probability to calibrate it; fitted on the validation images."""
