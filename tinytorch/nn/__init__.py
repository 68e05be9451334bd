"""Layers and models, under PyTorch's names where PyTorch has them."""

from tinytorch.nn import functional
from tinytorch.nn.activation import GELU, Dropout, ReLU
from tinytorch.nn.attention import MultiHeadAttention, PastKeyValue
from tinytorch.nn.block import TransformerBlock
from tinytorch.nn.cache import KVCache
from tinytorch.nn.image import AvgPool2d, Conv2d, Flatten, MaxPool2d
from tinytorch.nn.linear import Embedding, Linear
from tinytorch.nn.module import Module, Parameter, Sequential
from tinytorch.nn.normalization import BatchNorm2d, LayerNorm
from tinytorch.nn.transformer import GPT

__all__ = [
    "GELU",
    "GPT",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "KVCache",
    "LayerNorm",
    "Linear",
    "MaxPool2d",
    "Module",
    "MultiHeadAttention",
    "Parameter",
    "PastKeyValue",
    "ReLU",
    "Sequential",
    "TransformerBlock",
    "functional",
]
