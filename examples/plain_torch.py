"""MAT in a plain PyTorch loop: three lines more than ERM, and the worst group gains.

Real handwritten digits: is it 5 or more? In training the background gives the answer away 19 times in 20; in the
test it does not. Neither loop sees which background an example has. Takes about ten seconds.

    python examples/plain_torch.py
"""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import unrote

EPOCHS = 60
task = unrote.load_task("digits")
train_set = TensorDataset(task.train.x[torch.arange(len(task.train))], task.train.y)
test_x, test_y = task.test.x[torch.arange(len(task.test))], task.test.y


def make_net() -> nn.Module:
    """The model, new each time it is called."""
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 2))


def train_net(shift: Tensor) -> nn.Module:
    """A loop as one writes it, but for the three lines marked MAT."""
    torch.manual_seed(0)
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    loader = DataLoader(unrote.IndexedDataset(train_set), batch_size=128, shuffle=True)  # MAT
    criterion = unrote.MATLoss(shift)  # MAT
    for _ in range(EPOCHS):
        for x, y, index in loader:
            optimizer.zero_grad()
            criterion(net(x), y, index).backward()  # MAT
            optimizer.step()
    return net.eval()


def worst_group(net: nn.Module) -> float:
    """Accuracy of the group (class and background) that fares worst in the test."""
    with torch.no_grad():
        correct = (
            net(test_x).argmax(1) == test_y
        ).float()  # no shift: predictions use the logits as they are
    group = task.group(task.test)
    return min(float(correct[group == g].mean()) for g in group.unique())


recipe = unrote.Recipe("adam", 1e-3, batch_size=128, epochs=EPOCHS)
logits = unrote.held_out_logits(make_net, train_set, recipe=recipe)
shift = unrote.mat_shift(logits, task.train.y, temperature=0.1)

erm = worst_group(train_net(torch.zeros_like(shift)))  # a shift of 0 is ERM
mat = worst_group(train_net(shift))
print(f"worst-group accuracy on the test: ERM {erm:.2f}, MAT {mat:.2f}")
assert mat > erm + 0.1
