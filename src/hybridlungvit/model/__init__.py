"""The model: stem → tokens → fusion, with an optional segmentation head."""

from hybridlungvit.model.hybrid import HybridLungViT, ModelOutput, PlainViT, build_model

__all__ = ["HybridLungViT", "ModelOutput", "PlainViT", "build_model"]
