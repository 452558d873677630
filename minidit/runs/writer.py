"""A trained model that writes pictures as numbers, with the same doors as one that denoises them (pipeline.py).

    x_0 = write(network, process, labels)        numbers, group by group                        (Q.14, Q.19 - Q.22)
    pictures = decode(x_0)                       also of the first groups, to see how a picture comes about
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from minidit import shown
from minidit.autograd import no_grad, value
from minidit.autoregressive.choose import check_choice
from minidit.backend import Arena, Array, flat_buffer, module_of, to_device
from minidit.keywords import spelled_out
from minidit.nn.precision import computing_in
from minidit.processes.tokens import TokenProcess, Writing, groups_written, write
from minidit.processes.walk import Moment, Progress
from minidit.runs.pipeline import Pipeline
from minidit.runs.walks import Settings
from minidit.runs.wanted import Labels
from minidit.training.draws import Draws
from minidit.training.source import Source
from minidit.training.workers import cores, over_shards

MOST = 256  # pictures that are written together


@dataclass(repr=False)
class Writer(Pipeline):
    """A model on numbers, its order, and the tokenizer that makes pictures of them.   rises : see `settings`"""

    rises: bool = False

    def facts(self) -> dict[str, str]:
        order = self.writes.order
        return {
            "network": repr(self.model), "writes": f"{order.tokens} codes in {order.passes} passes",
            "tokenizer": repr(self.tokenizer), "guidance": f"{self.guidance:g}", "classes": shown.words(self.class_names),
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"Writer({self.model!r}, {self.tokenizer!r})"

    def curves(self) -> str:
        """An empty text: codes are on no path."""
        return ""

    @property
    def writes(self) -> TokenProcess:
        """The process, whose `order` says what is written in which groups."""
        process: Any = self.process
        assert isinstance(process, TokenProcess)
        return process

    @property
    def ladder(self) -> None:
        """Numbers are on no path."""
        return None

    def steps(self, wanted: int | None, flag: str = "--steps", usual: int | None = None) -> int:
        """The number of groups. Raises ValueError for any other."""
        order = self.writes.order
        if wanted not in (None, order.passes):
            raise ValueError(f"{flag} {wanted}: this model writes {order.tokens} codes in {order.passes} passes, no more or less")
        return order.passes

    def in_short(self, steps: int, most: int = 25) -> int:
        """All of them: half a picture shows nothing."""
        return self.steps(None)

    def walk_words(self, sampler: str, solver: str, eta: float, path: str = "") -> tuple[str, str]:
        """(the word of the process, "euler"). Raises ValueError where a walk is meant."""
        own = self.usual.sampler
        if sampler not in ("", own) or solver not in ("", "euler") or eta or path:
            raise ValueError(f"this model writes codes ({own}) and takes no sampler, solver, eta or path: leave them out")
        return own, "euler"

    def writing(self, **options: Unpack[Settings]) -> Writing:
        """How numbers are chosen. Raises ValueError for settings of a walk, which change nothing here.

        guidance : None: the pipeline's own   temperature, top_k, top_p : of the choice (Q.21); 1, 0 and 1 leave it alone
        rising : whether guidance rises from 1 at the first group to its scale at the last (Q.20); None: as is usual
        """
        self.steps(options.get("steps"))
        words = (options.get("sampler", ""), options.get("solver", ""), options.get("eta", 0.0), options.get("path", ""))
        self.walk_words(*words)
        if options.get("spacing") or options.get("shift") is not None or options.get("interval") not in (None, (0.0, 1.0)):
            raise ValueError("this model writes codes and takes no spacing, shift or interval of guidance: leave them out")
        w, rises = options.get("guidance"), options.get("rising")
        temperature, top_p = options.get("temperature"), options.get("top_p")
        how = Writing(
            guidance=1.0 if self.model.condition.null is None else self.guidance if w is None else w,
            rises=self.rises if rises is None else rises, temperature=1.0 if temperature is None else temperature,
            top_k=options.get("top_k") or 0, top_p=1.0 if top_p is None else top_p, seed=options.get("seed", 0),
        )  # fmt: skip
        check_choice(how.temperature, how.top_k, how.top_p)
        return how

    @spelled_out(Pipeline.settings)
    def latents(
        self,
        labels: Labels | None,
        *,
        n: int = 16,
        x_T: Array | None = None,
        trace: bool = False,
        progress: Progress | None = None,
        **options: Unpack[Settings],
    ) -> Any:
        """The numbers of new pictures, (B, N); with trace=True an iterator over Moments, numbers so far, that ends with all.

        n : how many, if there are no labels.   options : those of `writing`, which says what is raised
        """
        if x_T is not None:
            raise ValueError("codes are written from nothing: there is no x_T")
        how, B = self.writing(**options), n if labels is None else len(labels)
        y = None if labels is None else to_device(np.asarray(labels, np.int64), self.model.device)
        samples, precision = module_of(self.model.device).arange(B), options.get("precision", "float32")
        if trace:
            return self.traced(y, how, B, precision)
        N = self.writes.order.tokens
        result = flat_buffer(B * N, np.int64, self.model.device).reshape(B, N)

        def body(part: slice, i: int) -> None:
            for k in range(part.start, part.stop, MOST):  # no arena: scales of many sizes would each keep their own
                some = slice(k, min(k + MOST, part.stop))
                classes, first = None if y is None else y[some], i == 0 and k == part.start
                result[some] = write(self.model, self.writes, classes, how, n=some.stop - some.start, samples=samples[some],
                                     progress=progress if first else None)  # fmt: skip

        with computing_in(precision, self.model.device, getattr(self.model, "flat", None)):
            over_shards(B, body, self.model.device, min(options.get("shards", 0) or cores(), B), into=[result])
        return result

    def traced(self, y: Array | None, how: Writing, n: int, precision: str) -> Iterator[Moment | Array]:
        """Numbers so far after every group, as Moments whose time is the part that is not written; then all."""
        passes, groups = self.writes.order.passes, groups_written(self.model, self.writes, y, how, n=n)
        index: Array = None
        for g in range(passes):
            with no_grad(), computing_in(precision, self.model.device, getattr(self.model, "flat", None)):
                index = next(groups)
            yield Moment(1 - g / passes, 1 - (g + 1) / passes, index, index)
        yield index

    def nats(self, source: Source, most: int = 2000) -> float:
        """Nats per number of at most so many held-out pictures (Q.18)."""
        n, total = min(most, len(source)), 0.0
        draws = Draws(0, self.writes.stream, np.arange(n), self.model.device, self.model.dtype, self.writes.per)
        with no_grad():
            for k in range(0, n, MOST):
                piece = draws.at(0, np.arange(k, min(n, k + MOST)))
                x_0, y = source.draw(to_device(piece.samples, self.model.device), piece)
                y = y if self.model.condition.count else None
                with Arena():
                    total += float(value(self.writes.loss(self.model, x_0, y, piece)[0]).sum())
        return total / n
