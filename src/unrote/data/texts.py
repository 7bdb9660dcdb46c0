"""Texts, alone or in pairs, as a tokenizer makes them ready for a language model."""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unrote.errors import DataError

Text: TypeAlias = "str | tuple[str, str]"
"""A text, or two that belong together (a premise and what is claimed of it)."""


class TokenizedTexts(torch.utils.data.Dataset[Any]):
    """Texts as a map-style data set whose items are numbers of tokens; `collate` pads a minibatch.

    Args:
        texts: strings or pairs.
        tokenizer: a Hugging Face tokenizer.
        max_length: tokens that are kept of each.
    """

    def __init__(self, texts: Sequence[Text], tokenizer: Any, max_length: int) -> None:
        self.texts, self.tokenizer, self.max_length = texts, tokenizer, max_length

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, i: int) -> tuple[Text]:
        return (self.texts[i],)  # a pair is one example, not an example and its label

    def collate(self, texts: list[Text]) -> dict[str, Tensor]:
        """The tokens of a minibatch, padded to its longest text: "input_ids", "attention_mask", ...

        Raises:
            DataError: if the tokenizer cannot pad.
        """
        return tokens(texts, self.tokenizer, self.max_length)


def tokens(texts: Sequence[Text], tokenizer: Any, max_length: int) -> dict[str, Tensor]:
    """The tokens of some texts, padded to the longest of them.

    Args:
        texts: all strings, or all pairs.
        tokenizer: a Hugging Face tokenizer.
        max_length: tokens that are kept of each.

    Raises:
        DataError: if the tokenizer cannot pad.
    """
    first = [text if isinstance(text, str) else text[0] for text in texts]
    second = [text[1] for text in texts if not isinstance(text, str)]
    try:
        made = tokenizer(
            first, second or None, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
    except ValueError as error:
        raise DataError(
            f"the tokenizer cannot make minibatches ({error}): give it a padding token, for example "
            "tokenizer.pad_token = tokenizer.eos_token"
        ) from error
    return {name: made[name] for name in made}


def text_key(text: Text) -> bytes:
    """A hash of a text's content; a pair differs from its texts put together."""
    parts = (text,) if isinstance(text, str) else text
    content = b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in parts)
    return hashlib.blake2b(content, digest_size=16).digest()
