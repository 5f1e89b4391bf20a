"""A causal Transformer that predicts the next character, and the block that it is made of.

    import decoder
    model = decoder.build(width=256, depth=4)   # from token numbers, (rows, length), to logits

The width of a head is fixed, so the number of heads grows with the width of the model.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from keras import layers

HEAD_WIDTH = 16
TOKENS = 98  # of `keras_initx.datasets.read_pysource`, with padding and the unknown character


def build(
    width: int = 64,
    depth: int = 2,
    *,
    head_width: int = HEAD_WIDTH,
    length: int = 64,
    tokens: int = TOKENS,
    tied: bool = False,
    initializer: str = "glorot_uniform",
) -> keras.Model:
    """Returns a decoder with normalization before each branch, from token numbers to logits.

    Args:
        width: The width of the embeddings and of the signal; a multiple of `head_width`.
        depth: The number of blocks. A block is a branch of attention and a branch of two dense layers.
        head_width: The width of an attention head. There are width / head_width heads.
        length: The number of tokens that are read.
        tokens: The number of different tokens.
        tied: Whether the embedding's weights also make the logits. Else a dense layer makes them.
        initializer: The initializer of all kernels except the embeddings.
    """
    if width < 1 or width % head_width:
        raise ValueError(
            f"`width` must be a multiple of the width of a head, {head_width}. Received: width={width}."
        )
    if depth < 1:
        raise ValueError(f"`depth` must be at least 1. Received: depth={depth}.")
    if tied:
        embedding = layers.ReversibleEmbedding(tokens, width, name="embedding")
    else:
        embedding = layers.Embedding(tokens, width, name="embedding")
    ids = keras.Input((length,), dtype="int32", name="ids")
    x = embedding(ids) + embed_positions(ids, width)
    for number in range(1, depth + 1):
        x = block(x, f"block{number}", width // head_width, 4 * width, "gelu", initializer, causal=True)
    x = layers.LayerNormalization(name="norm")(x)
    if tied:
        logits = embedding(x, reverse=True)
    else:
        logits = layers.Dense(tokens, kernel_initializer=initializer, dtype="float32", name="logits")(x)
    return keras.Model(ids, logits, name=f"decoder_{width}x{depth}")


def embed_positions(ids: keras.KerasTensor, width: int) -> keras.KerasTensor:
    """Returns a learned vector for each position, for rows of token numbers."""
    positions = keras.ops.cumsum(keras.ops.ones_like(ids), axis=1) - 1
    return layers.Embedding(ids.shape[1], width, name="positions")(positions)


def block(
    x: keras.KerasTensor,
    name: str,
    heads: int,
    hidden: int,
    activation: str,
    initializer: str,
    causal: bool = False,
) -> keras.KerasTensor:
    """Adds a branch of attention and a branch of two dense layers, each after a normalization."""
    width = x.shape[-1]
    y = layers.LayerNormalization(name=f"{name}_norm1")(x)
    attention = layers.MultiHeadAttention(
        heads, width // heads, kernel_initializer=initializer, name=f"{name}_attention"
    )
    x = x + attention(y, y, use_causal_mask=causal)
    y = layers.LayerNormalization(name=f"{name}_norm2")(x)
    y = layers.Dense(hidden, activation, kernel_initializer=initializer, name=f"{name}_wide")(y)
    return x + layers.Dense(width, kernel_initializer=initializer, name=f"{name}_narrow")(y)
