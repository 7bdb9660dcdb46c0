import pytest
import torch

from unrote.demo import learned_by_rote, run_demo


@pytest.mark.usefixtures("shapes_unchecked")
def test_what_is_learned_by_rote_is_the_minority() -> None:
    task, (erm, mat) = run_demo(seed=2)
    score = learned_by_rote(task, erm.fitted, mat.fitted)
    assert torch.all(score.abs() <= 1)
    top = score.argsort(descending=True)[:12]
    minority = task.train.y != task.train.attribute
    assert minority[top].float().mean() > 0.9
    assert minority.float().mean() < 0.06
