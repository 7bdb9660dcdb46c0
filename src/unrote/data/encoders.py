"""Encoders of pictures and texts: any Hugging Face model, as a local folder or an object; or a module of one's own.

Folders are read with safetensors only, without code of their own, and no model hub is asked for anything.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrote.data.extraction import Encoder
from unrote.data.pictures import IMAGENET_DEVIATION, IMAGENET_MEAN, PictureForm
from unrote.data.texts import Text, tokens
from unrote.errors import DataError, MissingPackageError, OptionError, UnroteError

POOLINGS = ("auto", "first", "mean", "pooler")
"""Which of a transformer's outputs are the features: the first token's, the mean over tokens, its own pooler's;
"auto" is the first token's for pictures and the mean for texts. A convolutional network gives its mean over
places in any case."""


def picture_encoder(
    model: Any, *, pooling: str = "auto", batch_size: int = 32, device: str | torch.device | None = None
) -> Encoder:
    """An encoder of pictures, which takes tensors (3, H, W).

    Args:
        model: a folder that `save_pretrained` made, or a module that takes (B, 3, H, W).
        pooling: one of `POOLINGS`.
        batch_size: pictures at once.
        device: where to run; default where the model is.

    Raises:
        OptionError: if the pooling is unknown.
        DataError: if the folder cannot be read.
        MissingPackageError: if transformers is needed and not installed.
    """
    network = _ready(model, device)
    pool = _pooling(pooling, "first")

    @torch.no_grad()
    def encode(pictures: list[Tensor]) -> Float[np.ndarray, "B d"]:
        batch = torch.stack(pictures).to(_device(network))
        own = getattr(network, "get_image_features", None)
        return _rows(own(batch) if own is not None else network(batch), None, pool)

    return Encoder(encode, f"pictures:{pooling}:{fingerprint(network)}", batch_size)


def text_encoder(
    model: Any,
    tokenizer: Any = None,
    *,
    max_length: int = 128,
    pooling: str = "auto",
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> Encoder:
    """An encoder of texts, which takes strings or pairs of them.

    Args:
        model: "minilm", a folder that `save_pretrained` made, or a Hugging Face model.
        tokenizer: a Hugging Face tokenizer; default the one in the model's folder.
        max_length: tokens that are kept of each text.
        pooling: one of `POOLINGS`.
        batch_size: texts at once.
        device: where to run; default where the model is.

    Raises:
        OptionError: if the pooling is unknown, or a model is given without a tokenizer.
        DataError: if the folder cannot be read.
        MissingPackageError: if transformers is needed and not installed.
    """
    if isinstance(model, str) and model == "minilm":
        return _minilm(batch_size)
    pool = _pooling(pooling, "mean")
    if tokenizer is None:
        if not isinstance(model, (str, Path)):
            raise OptionError("a model without its tokenizer: pass tokenizer=, or a folder that has both")
        tokenizer = load_tokenizer(model)
    elif isinstance(tokenizer, (str, Path)):
        tokenizer = load_tokenizer(tokenizer)
    network = _ready(model, device)

    @torch.no_grad()
    def encode(texts: list[Text]) -> Float[np.ndarray, "B d"]:
        made = tokens(texts, tokenizer, max_length)
        made = {name: value.to(_device(network)) for name, value in made.items()}
        own = getattr(network, "get_text_features", None)
        out = own(**made) if own is not None else network(**made)
        return _rows(out, made.get("attention_mask"), pool)

    words = hashlib.blake2b(json.dumps(sorted(tokenizer.get_vocab().items())).encode(), digest_size=8)
    identity = f"texts:{pooling}:{max_length}:{words.hexdigest()}:{fingerprint(network)}"
    return Encoder(encode, identity, batch_size)


def _minilm(batch_size: int) -> Encoder:
    from unrote.data import minilm

    made: list[Callable[[list[str]], np.ndarray]] = []

    def encode(texts: list[Text]) -> Float[np.ndarray, "B d"]:
        if not made:  # 84 MB and a second, so not before something must be encoded
            made.append(minilm.load())
        return made[0]([text if isinstance(text, str) else " ".join(text) for text in texts])

    return Encoder(encode, f"minilm:{minilm.ARCHIVE.sha256}:{minilm.MAX_TOKENS}", batch_size)


def picture_form(model: Any, default: PictureForm) -> PictureForm:
    """How an encoder wants its pictures: as its folder says, else by default.

    Args:
        model: a folder, or anything else.
        default: of the data set.

    Raises:
        DataError: if the folder's preprocessor_config.json cannot be read.
    """
    path = Path(model) / "preprocessor_config.json" if isinstance(model, (str, Path)) else None
    if path is None or not path.is_file():
        return default
    try:
        config = json.loads(path.read_text())
        size, crop = _side(config.get("size")), _side(config.get("crop_size"))
        crop = crop if crop and config.get("do_center_crop", True) else size
        size = size or crop
        if not size or not crop:
            return default
        mean = tuple(map(float, config.get("image_mean") or IMAGENET_MEAN))
        deviation = tuple(map(float, config.get("image_std") or IMAGENET_DEVIATION))
        if len(mean) != 3 or len(deviation) != 3 or min(deviation) <= 0 or crop > size:
            raise DataError("three channels, and a crop within the picture, are wanted")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}): copy it again") from error
    return PictureForm(size, crop, default.cut, mean, deviation)


def _side(size: Any) -> int | None:
    """One side in pixels of the several ways in which sizes are written."""
    if isinstance(size, dict):
        sides = [size[name] for name in ("shortest_edge", "height", "width") if name in size]
        size = sides[0] if sides else None
    return None if size is None else int(size)


def load_tokenizer(folder: Any) -> Any:
    """The tokenizer in a folder.

    Raises:
        DataError: if the folder cannot be read.
        MissingPackageError: if transformers is not installed.
    """
    return _from_folder("AutoTokenizer", folder)


def _ready(model: Any, device: Any) -> nn.Module:
    if isinstance(model, (str, Path)):
        model = _from_folder("AutoModel", model, use_safetensors=True)
    if not isinstance(model, nn.Module):
        raise OptionError(
            f"an encoder of type {type(model).__name__}: a folder, a Hugging Face model or a torch module is wanted"
        )
    model.eval()
    return model if device is None else model.to(device)


def _from_folder(kind: str, folder: Any, **options: Any) -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "encoders need transformers, which is not installed: pip install 'unrote[transformers]'"
        ) from error
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file() and not (path / "tokenizer.json").is_file():
        raise DataError(
            f"{path} has no model: a folder that save_pretrained made is wanted; nothing is downloaded here"
        )
    try:
        return getattr(transformers, kind).from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False, **options
        )
    except UnroteError:
        raise
    except Exception as error:  # whatever a damaged folder makes the library raise
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{path} cannot be loaded ({reason}): save it again with save_pretrained (weights as safetensors)"
        ) from error


def fingerprint(network: nn.Module) -> str:
    """A hash of a module's class, and of every parameter and buffer by name."""
    digest = hashlib.blake2b(type(network).__qualname__.encode(), digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}:{tuple(value.shape)}:{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def _pooling(pooling: str, auto: str) -> str:
    if pooling not in POOLINGS:
        raise OptionError(f"pooling={pooling!r}: one of {', '.join(POOLINGS)} is wanted")
    return auto if pooling == "auto" else pooling


def _rows(out: Any, mask: Tensor | None, pool: str) -> Float[np.ndarray, "B d"]:
    """The features in what a model gave.

    Raises:
        DataError: if there are none.
    """
    states = out if isinstance(out, Tensor) else getattr(out, "last_hidden_state", None)
    pooled = getattr(out, "pooler_output", None)
    if states is None:
        states = pooled
    if states is None:
        raise DataError(f"the encoder gave {type(out).__name__}, which has no last_hidden_state")
    if states.ndim == 4:
        features = states.mean((2, 3))
    elif states.ndim == 3:
        if pool == "pooler" and pooled is None:
            raise DataError("the encoder has no pooler: choose pooling='mean' or 'first'")
        features = pooled if pool == "pooler" else states[:, 0] if pool == "first" else _mean(states, mask)
    else:
        features = states
    rows: np.ndarray = features.flatten(1).float().cpu().numpy()
    return rows


def _mean(states: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return states.mean(1)
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)
