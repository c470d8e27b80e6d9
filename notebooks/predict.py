# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # One image, from the file to a probability
# Run it where `results/` and an `image.jpeg` lie. Research software, not a medical device.

# %%
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from hybridlungvit.data.cache import prepare_image
from hybridlungvit.evaluation import auc_interval
from hybridlungvit.explain.gradcam import gradcam_maps
from hybridlungvit.explain.overlay import draw_overlay
from hybridlungvit.model.inference import pneumonia_probability
from hybridlungvit.predict import load_checkpoint

# %% [markdown]
# ## Load a model
# A folder in the layout of the model hub, or a name there. `HybridLungViT.from_pretrained(folder)`
# gives the model alone; this also tells the image size, threshold and mirroring of its evaluation.

# %%
checkpoint = load_checkpoint("results/kermany-cpu/model")
model, recipe = checkpoint.model, checkpoint.description.recipe
side = recipe.data.image_size

# %% [markdown]
# ## Predict
# The image is shrunk to the model's size, and the lung mask fitted to it.

# %%
path = Path("image.jpeg")
prepared = prepare_image(path.read_bytes(), path, side)
image = torch.from_numpy(prepared.image)[None]  # uint8 (1, S, S)
mask = torch.from_numpy(prepared.mask)[None]  # bool (1, S, S), True is lung
probability = float(pneumonia_probability(model, image, mask, recipe.evaluation.tta))
print(f"{checkpoint.study}: probability of pneumonia {probability:.3f}")

# %% [markdown]
# ## The same with a mask of your own
# Any bool array of the model's size; here two ellipses.

# %%
drawn = np.zeros((side, side), np.uint8)
for x in (0.3, 0.7):
    centre, axes = (round(x * side), round(0.5 * side)), (round(0.14 * side), round(0.35 * side))
    cv2.ellipse(drawn, centre, axes, 0, 0, 360, 1, thickness=-1)
own_mask = torch.from_numpy(drawn.astype(bool))[None]  # (1, S, S)
with_own_mask = float(pneumonia_probability(model, image, own_mask, recipe.evaluation.tta))
print(f"with the mask drawn by hand: {with_own_mask:.3f}")

# %% [markdown]
# ## What the model looks at
# Grad-CAM for pneumonia, beside the lungs' outline and the cut between left and right.

# %%
heat = gradcam_maps(model, image, mask, target=1)[0]  # (S, S)
grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)  # (H, W)
title = f"probability of pneumonia {probability:.3f}"
picture = draw_overlay(grey, prepared.mask, prepared.cut, heat, title)
cv2.imwrite("overlay.png", picture)

# %% [markdown]
# ## How good is it? An interval over patients
# From the published predictions of the test images; the interval draws patients, each with
# all its images.

# %%
predictions = pd.read_csv("results/kermany-cpu/predictions/no_seg/seed-45.csv")
test = predictions[predictions.split == "test"]
auc = auc_interval(test.label, test.probability, clusters=test.patient)
print(f"AUC {auc.estimate:.3f} (95 % CI {auc.low:.3f} to {auc.high:.3f})")
