"""What the sizes of a network that reads texts say about its condition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self, cast

from minidit.models.backbone import OfPatches
from minidit.models.condition import Condition, Encoded, Tokens, check_dropout


class OfWords(OfPatches):
    """The condition of a transformer that may read captions, or the outputs of text encoders. The base of a dataclass."""

    vocabulary: int
    caption_length: int
    word_dropout_prob: float
    text_width: int
    text_pooled: int
    text_length: int

    def check_text(self) -> None:
        """Raises ValueError for settings that conflict."""
        check_dropout(self.num_classes, self.class_dropout_prob, self.word_dropout_prob)
        if (self.vocabulary > 0) != (self.caption_length > 0) or (self.text_width > 0) != (self.text_pooled > 0):
            raise ValueError("vocabulary and caption_length go together, and so do text_width and text_pooled")
        if (self.num_classes > 0) + (self.vocabulary > 0) + (self.text_width > 0) > 1:
            raise ValueError("a model knows classes, or captions, or a text encoder's outputs: one of them")

    @property
    def words(self) -> int:
        """Tokens of the context."""
        return self.caption_length if self.vocabulary else self.text_length if self.text_width else 0

    @property
    def condition(self) -> Condition:
        """Captions, whose null word is one above the last, or a text encoder's outputs, or classes, or nothing."""
        if self.text_width:
            return Encoded(self.text_width, self.text_pooled, self.text_length)
        if self.vocabulary:
            null = self.vocabulary if self.class_dropout_prob > 0 else None
            return Tokens(self.vocabulary, self.caption_length, null, self.class_dropout_prob, self.word_dropout_prob)
        return super().condition

    def captioned(self, vocabulary: int, length: int) -> Self:
        """The same network for captions of so many words, out of so many."""
        return cast(Self, replace(cast(Any, self), vocabulary=vocabulary, caption_length=length, num_classes=0))

    def text_macs(self, D: int) -> int:
        """Multiply-accumulates of the embedders of a text, for one sample and width D."""
        if self.vocabulary:
            return 2 * D * D
        return (self.text_length * self.text_width + self.text_pooled + D) * D if self.text_width else 0

    def text_parameters(self, D: int) -> int:
        """Numbers of the embedders of a text, or of the table of classes, for width D."""
        if self.vocabulary:
            return (self.condition.rows + self.caption_length) * D + 2 * (D + 1) * D
        if self.text_width:
            return (self.text_width + 1) * D + (self.text_pooled + 1) * D + (D + 1) * D
        return self.condition.rows * D
