"""Where held-out logits come from."""

from unrote.heldout.alo import alo
from unrote.heldout.eiil import infer_environments
from unrote.heldout.held_out import HeldOut
from unrote.heldout.kfold import kfold
from unrote.heldout.precomputed import precomputed
from unrote.heldout.trunk import trunk, trunk_recipe
from unrote.heldout.xrm import NETWORK_SHARE, XRMResult, xrm

__all__ = [
    "NETWORK_SHARE",
    "HeldOut",
    "XRMResult",
    "alo",
    "infer_environments",
    "kfold",
    "precomputed",
    "trunk",
    "trunk_recipe",
    "xrm",
]
