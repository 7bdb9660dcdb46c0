"""All randomness comes from (seed, purpose, step): nothing is drawn from a global generator.

Because a generator is made anew for each use, a run that resumes at step k needs no saved random state: it
asks for the generator of step k and continues bit for bit as if it had never stopped.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, independent for each (seed, purpose)."""
    text = "\x1f".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A fresh CPU generator for one purpose, for example `generator(seed, "order", epoch)`."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def global_seed(seed: int, *purpose: str | int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators for code that we do not own (dropout, initialisers), then restore them."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # not torch.manual_seed: until CUDA is first used it queues a seeding, with a formatted traceback, at
        # every call, which took a fifth of a small network's training time and memory without end
        torch.default_generator.manual_seed(derive_seed(seed, *purpose))
        for each in devices:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(derive_seed(seed, *purpose))
        yield
