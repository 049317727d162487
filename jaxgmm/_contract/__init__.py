"""The noun that every room agrees on, and what it says of itself."""

from jaxgmm._contract._definition import (
    Assignment,
    Params,
    Prior,
    Sites,
    Statistics,
    expected_labels,
)
from jaxgmm._contract._description import Description, Hyper
from jaxgmm._contract._latent_model import LatentModel
from jaxgmm._contract._notation import distribution_code, distribution_text, number_text
from jaxgmm._contract._proper import described, improper, innermost, instead, support_of
from jaxgmm._contract._within import at_edge, freedom, held, inwards, least_share, stepped

__all__ = [
    "Assignment",
    "Description",
    "Hyper",
    "LatentModel",
    "Params",
    "Prior",
    "Sites",
    "Statistics",
    "at_edge",
    "described",
    "distribution_code",
    "distribution_text",
    "expected_labels",
    "freedom",
    "held",
    "improper",
    "innermost",
    "instead",
    "inwards",
    "least_share",
    "number_text",
    "stepped",
    "support_of",
]
