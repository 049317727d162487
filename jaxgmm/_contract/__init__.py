"""The noun that every room agrees on, and what it says of itself."""

from jaxgmm._contract._definition import (
    Assignment,
    Params,
    Prior,
    Sites,
    Statistics,
    expected_labels,
)
from jaxgmm._contract._description import Description
from jaxgmm._contract._latent_model import LatentModel
from jaxgmm._contract._proper import described, innermost, instead, support_of
from jaxgmm._contract._within import at_edge, freedom, held, inwards, least_share, stepped

__all__ = [
    "Assignment",
    "Description",
    "LatentModel",
    "Params",
    "Prior",
    "Sites",
    "Statistics",
    "at_edge",
    "described",
    "expected_labels",
    "freedom",
    "held",
    "innermost",
    "instead",
    "inwards",
    "least_share",
    "stepped",
    "support_of",
]
