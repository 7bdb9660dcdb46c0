"""module=: names, classes, factories and prototypes, for tables and for pictures."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from torch import Tensor, nn

from unrote import ERMClassifier, MATClassifier, UnroteError
from unrote.models import StackedLinear, StackedMLP

X, Y = load_iris(return_X_y=True)
QUICK: dict[str, Any] = {"epochs": 20, "learning_rate": 0.02, "random_state": 0}
KNOWN: dict[str, Any] = {"temperature": 0.5}  # else a look for a shortcut trains ten models more


class Net(nn.Module):
    """A perceptron with dropout."""

    def __init__(self, width: int = 8, n_classes: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class PictureNet(nn.Module):
    """A small convolutional network."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, channels, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(9 * channels, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def factory(width: int = 8) -> nn.Module:
    return Net(width)


def same(one: Any, other: Any) -> bool:
    return np.array_equal(one.predict_proba(X), other.predict_proba(X))


class TestDefault:
    @pytest.mark.parametrize(("d", "kind"), [(1, StackedLinear), (32, StackedLinear), (33, StackedMLP)])
    def test_linear_on_few_features(self, d: int, kind: type) -> None:
        x = np.random.default_rng(0).normal(size=(40, d))
        assert type(ERMClassifier(epochs=1).fit(x, x[:, 0] > 0).stack_) is kind

    @pytest.mark.parametrize(("name", "kind"), [("linear", StackedLinear), ("mlp", StackedMLP)])
    def test_by_name(self, name: str, kind: type) -> None:
        assert type(ERMClassifier(name, epochs=1).fit(X, Y).stack_) is kind


class TestOfOnesOwn:
    def test_class_with_parameters(self) -> None:
        classifier = MATClassifier(Net, module__width=5, **{**QUICK, "epochs": 80}).fit(X, Y)
        assert classifier.stack_.members[0].head.in_features == 5
        assert classifier.score(X, Y) > 0.8

    def test_a_function_is_as_good_as_a_class(self) -> None:
        one = MATClassifier(Net, module__width=5, **KNOWN, **QUICK).fit(X, Y)
        assert same(one, MATClassifier(factory, module__width=5, **KNOWN, **QUICK).fit(X, Y))
        assert same(one, MATClassifier(lambda: Net(5), **KNOWN, **QUICK).fit(X, Y))

    def test_prototype_starts_every_model_and_is_left_alone(self) -> None:
        prototype = Net(5)
        before = copy.deepcopy(prototype.state_dict())
        still = MATClassifier(prototype, held_out="xrm", **KNOWN, **{**QUICK, "learning_rate": 0.0}).fit(X, Y)
        for name, value in still.stack_.members[0].state_dict().items():
            assert torch.equal(value, before[name])
        # with a rate of 0 the twins are the model itself, and see what it sees
        np.testing.assert_allclose(still.held_out_logits_, still.decision_function(X), atol=1e-6)
        MATClassifier(prototype, **QUICK).fit(X, Y)
        for name, value in prototype.state_dict().items():
            assert torch.equal(value, before[name])

    def test_prototype_with_parameters_is_its_class(self) -> None:
        assert same(
            ERMClassifier(Net(3), module__width=5, **QUICK).fit(X, Y),
            ERMClassifier(Net, module__width=5, **QUICK).fit(X, Y),
        )

    @pytest.mark.parametrize("module", [Net, factory, Net(5)], ids=["class", "function", "prototype"])
    def test_clone_and_pickle(self, module: Any) -> None:
        classifier = MATClassifier(module, **KNOWN, **QUICK)
        fitted = clone(classifier).fit(X, Y)
        assert same(fitted, classifier.fit(X, Y))
        assert same(fitted, pickle.loads(pickle.dumps(fitted)))  # noqa: S301

    def test_parameters_are_parameters(self) -> None:
        classifier = MATClassifier(Net, module__width=5, **QUICK)
        assert classifier.get_params()["module__width"] == 5
        classifier.set_params(module__width=6, module__dropout=0.2, temperature=2.0)
        assert classifier.get_params()["module__dropout"] == 0.2
        assert clone(classifier).get_params() == classifier.get_params()
        assert "module__width=6" in repr(classifier)
        assert classifier.fit(X, Y).stack_.members[0].head.in_features == 6


class TestPictures:
    digits = load_digits()
    pictures = digits.images[:300, None]  # (n, 1, 8, 8)
    y = digits.target[:300] >= 5

    @pytest.mark.parametrize("module", ["cnn", PictureNet])
    def test_more_than_two_dimensions(self, module: Any) -> None:
        classifier = MATClassifier(module, epochs=10, learning_rate=0.01, random_state=0)
        classifier.fit(self.pictures / 16, self.y)
        assert classifier.predict_proba(self.pictures / 16).shape == (300, 2)
        assert classifier.score(self.pictures / 16, self.y) > 0.7
        assert classifier.feature_mean_ is None
        assert classifier.__sklearn_tags__().input_tags.three_d_array

    def test_tensors(self) -> None:
        x = torch.from_numpy(self.pictures).float() / 16
        one = ERMClassifier(PictureNet, epochs=2, random_state=0).fit(x, torch.from_numpy(self.y))
        other = ERMClassifier(PictureNet, epochs=2, random_state=0).fit(x.numpy(), self.y)
        np.testing.assert_array_equal(one.predict_proba(x), other.predict_proba(x.numpy()))

    @pytest.mark.usefixtures("shapes_unchecked")
    def test_another_shape_at_prediction(self) -> None:
        classifier = ERMClassifier(PictureNet, epochs=1).fit(self.pictures, self.y)
        with pytest.raises(UnroteError, match=r"shape \(1, 4, 8\)"):
            classifier.predict(self.pictures[:, :, ::2])


@pytest.mark.usefixtures("shapes_unchecked")
class TestErrors:
    @pytest.mark.parametrize(
        ("module", "parameters", "message"),
        [
            (Net, {"module__depth": 3}, "module=Net cannot be called with depth"),
            (nn.Linear, {}, "module=Linear cannot be called with no parameters"),
            (Net, {"module__n_classes": 2}, r"\(batch, 3\)|3"),
            (lambda: "a net", {}, "gave a str"),
        ],
    )
    def test_module(self, module: Any, parameters: dict[str, Any], message: str) -> None:
        with pytest.raises(UnroteError, match=message):
            ERMClassifier(module, **QUICK, **parameters).fit(X, Y)
