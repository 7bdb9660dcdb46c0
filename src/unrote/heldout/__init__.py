"""Where held-out logits come from."""

from unrote.heldout.alo import alo
from unrote.heldout.eiil import infer_environments
from unrote.heldout.held_out import HeldOut
from unrote.heldout.kfold import kfold
from unrote.heldout.precomputed import precomputed
from unrote.heldout.trunk import begun, default_twins, first_steps, stands_on_trunk, trunk, trunk_recipe
from unrote.heldout.xrm import XRMResult, shorter_for_twins, twins_among, xrm

__all__ = [
    "HeldOut",
    "XRMResult",
    "alo",
    "begun",
    "default_twins",
    "first_steps",
    "infer_environments",
    "kfold",
    "precomputed",
    "shorter_for_twins",
    "stands_on_trunk",
    "trunk",
    "trunk_recipe",
    "twins_among",
    "xrm",
]
