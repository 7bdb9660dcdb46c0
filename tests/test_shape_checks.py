"""The suite checks shape annotations: a wrong shape inside the package cannot go unnoticed in any test."""

import pytest
import torch
from jaxtyping import TypeCheckError

from unrote.supervision import Supervision, cross_entropy

LOGITS = torch.zeros(1, 8, 3)


def test_right_shapes_pass() -> None:
    assert cross_entropy(LOGITS, torch.zeros(1, 8, dtype=torch.long)).shape == (1, 8)


def test_function_refuses_a_wrong_shape() -> None:
    # would broadcast in silence: one shift per example instead of one per class
    with pytest.raises(TypeCheckError):
        cross_entropy(LOGITS, torch.zeros(1, 8, dtype=torch.long), shift=torch.zeros(1, 8, 1))


def test_function_refuses_a_wrong_type() -> None:
    with pytest.raises(TypeCheckError):
        cross_entropy(LOGITS, torch.zeros(1, 8))


def test_dataclass_refuses_a_wrong_type() -> None:
    with pytest.raises(TypeCheckError):
        Supervision(torch.zeros(8))


@pytest.mark.usefixtures("shapes_unchecked")
def test_checks_can_be_turned_off() -> None:
    shift = torch.zeros(1, 8, 1)
    assert cross_entropy(LOGITS, torch.zeros(1, 8, dtype=torch.long), shift=shift).shape == (1, 8)
