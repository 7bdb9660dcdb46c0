"""What a data set's examples are, and the ways in which a model can be shown them."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unrote.data.encoders import load_tokenizer, picture_encoder, picture_form, text_encoder
from unrote.data.extraction import Items, extract
from unrote.data.inputs import ArrayInputs, DatasetInputs, Inputs, open_features
from unrote.data.pictures import PictureFiles, PictureForm
from unrote.data.texts import Text, TokenizedTexts, text_key
from unrote.errors import DataError, OptionError

Choose: TypeAlias = Callable[[Int64[np.ndarray, " m"]], Inputs]
"""The inputs of some rows."""


class Examples(ABC):
    """What a data set shows: pictures, texts, or features that somebody made of them."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def inputs(self, **how: Any) -> Choose:
        """The examples as a model takes them.

        Args:
            **how: the options of the kind.

        Raises:
            OptionError: if an option is unknown to this kind, or options contradict each other.
            DataError: if something cannot be read.
        """

    def missing(self) -> list[str]:
        """What the metadata names and the folder lacks; costly for many pictures."""
        return []

    def given_features(self, path: "str | os.PathLike[str] | ArrayInputs") -> Choose:
        """Features that the user made, a row per row of the metadata.

        Raises:
            DataError: if there are more or fewer.
        """
        features = path if isinstance(path, ArrayInputs) else open_features(path)
        if len(features) != len(self):
            raise DataError(
                f"features={path}: {len(features):,} rows for the metadata's {len(self):,}: a row for each, in the "
                "same order, is wanted"
            )
        return lambda rows: features.subset(torch.from_numpy(rows))


@dataclass(frozen=True)
class Pictures(Examples):
    """Pictures in a folder.

    Args:
        root: the folder.
        names: of the files, relative to it.
        form: how the field cuts and scales them.
    """

    root: Path
    names: Sequence[str]
    form: PictureForm

    def __len__(self) -> int:
        return len(self.names)

    def missing(self) -> list[str]:
        """Names of the files that are not there."""
        files = PictureFiles(self.root, self.names, self.form)
        return [name for name in files.names if not (self.root / name).is_file()]

    def inputs(
        self,
        *,
        features: Any = None,
        encoder: Any = None,
        pooling: str = "auto",
        batch_size: int = 32,
        device: Any = None,
        workers: int = 0,
        **other: Any,
    ) -> Choose:
        """Pixels (3, 224, 224), or features if there is an encoder or a file of them; see `Examples.inputs`.

        Raises:
            OptionError: if an option is not one of pictures.
        """
        refuse(other, "pictures")
        if features is not None:
            return self.given_features(features)
        if encoder is None:
            files = PictureFiles(self.root, self.names, self.form)
            return lambda rows: DatasetInputs(files, workers).subset(torch.from_numpy(rows))
        files = PictureFiles(self.root, self.names, picture_form(encoder, self.form))
        made = picture_encoder(encoder, pooling=pooling, batch_size=batch_size, device=device)
        return self.given_features(open_features(extract(PictureItems(files), made)))


class PictureItems(Items):
    """Pictures to encode."""

    def __init__(self, files: PictureFiles) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def key(self, i: int) -> bytes:
        """See `Items.key`; how a picture is cut and scaled is part of it."""
        return self.files.key(i) + repr(self.files.form).encode()

    def item(self, i: int) -> Float[Tensor, "3 H W"]:
        """See `Items.item`."""
        return self.files[i]


@dataclass(frozen=True)
class Texts(Examples):
    """Texts, or pairs of them.

    Args:
        texts: strings or pairs.
        max_length: tokens that the field keeps of each.
    """

    texts: Sequence[Text]
    max_length: int

    def __len__(self) -> int:
        return len(self.texts)

    def inputs(
        self,
        *,
        features: Any = None,
        encoder: Any = None,
        tokenizer: Any = None,
        max_length: int | None = None,
        pooling: str = "auto",
        batch_size: int = 32,
        device: Any = None,
        workers: int = 0,
        **other: Any,
    ) -> Choose:
        """Tokens if there is a tokenizer, features if there is an encoder or a file; see `Examples.inputs`.

        Raises:
            OptionError: if there is nothing that makes numbers of the texts, or an option is not one of texts.
        """
        refuse(other, "texts")
        length = self.max_length if max_length is None else max_length
        if features is not None:
            return self.given_features(features)
        if encoder is not None:
            made = text_encoder(
                encoder, tokenizer, max_length=length, pooling=pooling, batch_size=batch_size, device=device
            )
            return self.given_features(open_features(extract(TextItems(self.texts), made)))
        if tokenizer is None:
            raise OptionError(
                "texts must become numbers: pass encoder='minilm' or a folder for features, tokenizer= for tokens "
                "that a language model takes, or features= for a file of your own"
            )
        ready = load_tokenizer(tokenizer) if isinstance(tokenizer, (str, Path)) else tokenizer
        data = TokenizedTexts(self.texts, ready, length)
        whole = DatasetInputs(data, workers, data.collate)
        return lambda rows: whole.subset(torch.from_numpy(rows))


class TextItems(Items):
    """Texts to encode."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def key(self, i: int) -> bytes:
        """See `Items.key`."""
        return text_key(self.texts[i])

    def item(self, i: int) -> Text:
        """See `Items.item`."""
        return self.texts[i]


@dataclass(frozen=True)
class Tokens(Examples):
    """Texts that somebody tokenized: arrays (n, length) that a language model takes by these names."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def inputs(self, *, features: Any = None, workers: int = 0, **other: Any) -> Choose:
        """The tokens, or a file of features; see `Examples.inputs`.

        Raises:
            OptionError: if an option is not one of tokens.
        """
        refuse(other, "tokens")
        if features is not None:
            return self.given_features(features)
        whole = DatasetInputs(_TokenRows(self.arrays), workers)
        return lambda rows: whole.subset(torch.from_numpy(rows))


class _TokenRows(torch.utils.data.Dataset[Any]):
    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {name: torch.from_numpy(values[i].astype(np.int64)) for name, values in self.arrays.items()}


@dataclass(frozen=True)
class Features(Examples):
    """Features that the data set's folder has, in memory."""

    values: Float[Tensor, "n d"]

    def __len__(self) -> int:
        return len(self.values)

    def inputs(self, *, features: Any = None, **other: Any) -> Choose:
        """The features; see `Examples.inputs`.

        Raises:
            OptionError: if an option is not one of features.
        """
        refuse(other, "features")
        if features is not None:
            return self.given_features(features)
        return lambda rows: ArrayInputs(self.values[torch.from_numpy(rows)])


@dataclass(frozen=True)
class Absent(Examples):
    """Examples of which only the metadata are there.

    Args:
        n: how many.
        why: which files would have them.
    """

    n: int
    why: str

    def __len__(self) -> int:
        return self.n

    def missing(self) -> list[str]:
        """See `Examples.missing`."""
        return [self.why]

    def inputs(self, *, features: Any = None, **other: Any) -> Choose:
        """A file of features, which alone makes a task of them; see `Examples.inputs`.

        Raises:
            DataError: if there is none.
        """
        if features is None:
            raise DataError(f"only the metadata are there, not {self.why}: add them, or pass features=")
        refuse(other, "a set of which only metadata are there")
        return self.given_features(features)


def refuse(options: dict[str, Any], kind: str) -> None:
    """Refuse options that are not of a kind of examples, unless they are left at None.

    Raises:
        OptionError: likewise.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise OptionError(f"{given[0]}= does not go with {kind}: leave it out")
