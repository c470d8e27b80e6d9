"""Fusion: small encoders for each token set, then a class token that queries both lungs."""

import torch
from torch import Tensor, nn


def encoder(d_model: int, heads: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    """A pre-norm transformer encoder (Vaswani et al. 2017) with feed-forward width 2·d_model."""
    layer = nn.TransformerEncoderLayer(
        d_model,
        heads,
        dim_feedforward=2 * d_model,
        dropout=dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    return nn.TransformerEncoder(layer, layers, nn.LayerNorm(d_model), enable_nested_tensor=False)


class CrossAttention(nn.Module):
    """Multi-head attention of one query over a sequence, weights returned."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.output = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Query (B, D), tokens (B, N, D) → result (B, D), weights averaged over heads (B, N)."""
        q = self.query(query).unflatten(1, (self.heads, -1)).unsqueeze(2)  # (B, H, 1, D/H)
        key, value = self.key_value(tokens).chunk(2, dim=2)  # (B, N, D) each
        k = key.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, N, D/H)
        v = value.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, N, D/H)
        weights = (q @ k.transpose(2, 3) * k.shape[-1] ** -0.5).softmax(dim=3)  # (B, H, 1, N)
        mixed = (self.dropout(weights) @ v).flatten(1)  # (B, H, 1, D/H) → (B, D)
        return self.output(mixed), weights.mean(dim=1).squeeze(1)


class LungFusion(nn.Module):
    """Left, right and global tokens → one embedding and the attention over left and right.

    ``layers`` are those of each encoder; ``queries`` is how often the class token asks both lungs.
    """

    def __init__(
        self, d_model: int, token_count: int, heads: int, layers: int, dropout: float, queries: int
    ) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, d_model) * 0.02)
        # One row of position embeddings for each set: left, right, global.
        self.positions = nn.Parameter(torch.randn(3, 1, token_count, d_model) * 0.02)
        self.left_encoder = encoder(d_model, heads, layers, dropout)
        self.right_encoder = encoder(d_model, heads, layers, dropout)
        self.global_encoder = encoder(d_model, heads, layers, dropout)
        self.cross_attention = nn.ModuleList(
            CrossAttention(d_model, heads, dropout) for _ in range(queries)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(queries))

    def forward(self, left: Tensor, right: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Three token sets (B, N, D) → embedding (B, D), attention of the last query (B, 2N)."""
        left = self.left_encoder(left + self.positions[0])
        right = self.right_encoder(right + self.positions[1])
        query = self.class_token.expand(len(whole), -1, -1)  # (B, 1, D)
        context = self.global_encoder(torch.cat([query, whole + self.positions[2]], dim=1))
        query = context[:, 0]  # (B, D): the class token, having seen the whole image
        lungs = torch.cat([left, right], dim=1)  # (B, 2N, D)
        for attend, norm in zip(self.cross_attention, self.norms, strict=True):
            answer, attention = attend(query, lungs)
            query = norm(query + answer)
        return query, attention
