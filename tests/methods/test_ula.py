"""uLA: the shift against counts, the features it reads for each kind of model, and the shortcut overcome."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import assert_same_bits, planted_task, worst_on_digits

from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import METHODS, Session
from unrote.methods.ula import ULA
from unrote.models import stack_builder
from unrote.supervision import Supervision
from unrote.training import Recipe, Supervised

TASK = planted_task(64)


def session(model: object = "linear", epochs: int = 20, task: Task = TASK) -> Session:
    return Session(task, stack_builder(model, (8,), 2), Recipe("adam", 0.03, batch_size=16, epochs=epochs))  # type: ignore[arg-type]


def test_shift_is_the_log_share_of_each_class_where_the_probe_says_so() -> None:
    """Towards temperature 0 the shares are those of counts."""
    run = session()
    supervision = ULA(temperature=1e-3, eta=1.5, share=0.2).supervision(run)
    guess, y = run.artefacts["guess"].numpy(), TASK.train.y.numpy()
    assert np.array_equal(guess, TASK.train.attribute.numpy())  # the probe has learned the shortcut
    assert supervision.shift is not None
    for i in range(64):
        share = [np.mean(y[guess == guess[i]] == c) for c in range(2)]
        np.testing.assert_allclose(supervision.shift[i], 1.5 * np.log(np.array(share) + 1e-6), rtol=1e-4)


def test_soft_shares_of_the_epoch_that_predicts_the_validation_labels_best() -> None:
    """The validation split follows the shortcut throughout, so that an early epoch is best."""
    checked = TASK.splits["validation"]
    task = Task("planted", train=TASK.train, validation=Split(checked.x, checked.attribute))
    losses, logits = losses_and_logits(task)
    best = int(np.argmin(losses))
    assert 0 < best < 19
    for share, epoch in ((1.0, best), (0.1, 1)):
        shift = ULA(share=share, temperature=1.0).supervision(session(task=task)).shift
        assert shift is not None
        q = logits[epoch].softmax(1).double().numpy()
        joint = np.array([[q[TASK.train.y.numpy() == c, k].sum() for c in range(2)] for k in range(2)])
        table = joint / joint.sum(1, keepdims=True)
        np.testing.assert_allclose(shift, np.log(table[q.argmax(1)] + 1e-6), rtol=1e-4)


def losses_and_logits(task: Task) -> tuple[list[float], list[torch.Tensor]]:
    """Validation loss and training logits of a linear model after 1, 2, ..., 20 epochs, each trained anew."""
    losses, logits = [], []
    for epochs in range(1, 21):
        run = session(epochs=epochs, task=task)
        stack = run.train(Supervised(Supervision(task.train.y)), stage="probe").stack
        checked = task.splits["validation"]
        losses.append(float(F.cross_entropy(stack.predict(checked.x)[0], checked.y)))
        logits.append(stack.predict(task.train.x)[0])
    return losses, logits


def test_without_a_validation_split_the_last_epoch_is_kept() -> None:
    task = Task("planted", train=TASK.train)
    run = session(task=task)
    ULA().supervision(run)
    last = session(task=task).train(Supervised(Supervision(task.train.y)), stage="probe").stack
    assert torch.equal(run.artefacts["guess"], last.predict(task.train.x)[0].argmax(1))


def test_eta_zero_is_erm() -> None:
    fitted = ULA(eta=0.0).fit(session())
    assert not fitted.artefacts["shift"].any()
    assert_same_bits(fitted.stack.state_dict(), METHODS["erm"]().fit(session()).stack.state_dict())


class Pretrained(nn.Module):
    """A module that comes with features: the first input, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Linear(8, 1, bias=False), nn.Linear(1, 2)
        with torch.no_grad():
            self.features.weight.copy_(torch.eye(1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(x))
        return logits


@pytest.mark.parametrize(
    ("model", "share"),
    [
        ("linear", 0.2),
        ("mlp", 0.05),
        (Pretrained, 1.0),
        (lambda: nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 2)), 0.2),
    ],
)
def test_the_probe_finds_the_shortcut_in_the_features_of_any_model(model: object, share: float) -> None:
    run = session(model)
    ULA(share=share).supervision(run)
    assert float((run.artefacts["guess"] == TASK.train.attribute).double().mean()) > 0.95


def test_a_probe_that_is_right_about_all_is_said_to_be() -> None:
    with pytest.warns(UserWarning, match="lower uLA's share, now 1"):
        ULA(share=1.0).supervision(session(epochs=200))


@pytest.mark.parametrize("settings", [{"eta": -1.0}, {"share": 1.5}, {"temperature": 0.0}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        ULA(**settings)


def test_overcomes_the_shortcut() -> None:
    assert worst_on_digits("ula") > worst_on_digits("erm") + 0.2
