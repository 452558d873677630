"""A trained model with all that it needs to make pictures: from labels to images in one call.

    pictures = load("runs/mine").sample("shirt,bag", steps=50, guidance=2)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack, overload

import numpy as np

from minidit import shown
from minidit.backend import Array, xp_of
from minidit.checkpoint.grammar import is_a
from minidit.choices import check_word
from minidit.data.captions import Vocabulary
from minidit.diffusion.prediction import Prediction
from minidit.diffusion.schedule import Schedule
from minidit.images import Pictures
from minidit.keywords import spelled_out
from minidit.models.backbone import TrainedBackbone
from minidit.models.flow_map import FlowMapDiT
from minidit.models.guided import GuidedDiT
from minidit.models.spacetime import SpacetimeDiT
from minidit.processes.distil import in_steps
from minidit.processes.sample import Sampling, Trained
from minidit.processes.sample import sample as draw
from minidit.processes.tokenizer import Pixel, Tokenizer
from minidit.processes.walk import Moment, Progress
from minidit.runs.process_config import USUAL, Usual
from minidit.runs.walks import Settings, in_one_call, other_path, refuse_other_walks, steps_of, words_of_walk
from minidit.runs.wanted import Labels, Wanted, classes_of, rows_of
from minidit.runs.words import SAMPLERS, SOLVERS, SPACINGS


@dataclass
class Pipeline:
    """A model, the process that it was trained for, and the tokenizer that makes pictures of its x_0."""

    model: TrainedBackbone
    tokenizer: Tokenizer
    process: Trained
    class_names: tuple[str, ...] = ()
    crop: int = 0
    meta: dict[str, Any] | None = None
    guidance: float = 2.0  # unless a call sets its own
    interval: tuple[float, float] = (0.0, 1.0)
    usual: Usual = USUAL
    vocabulary: Vocabulary | None = None  # of a model of captions

    def facts(self) -> dict[str, str]:
        """Name -> value, of what it is made of and how it usually draws, as text."""
        usual, guided = self.usual, self.model.condition.null is not None and not self.usual.few
        where = "" if self.interval == (0.0, 1.0) else " in ({:g}, {:g}] of the path".format(*self.interval)
        steps = self.steps(None)
        return {
            "network": repr(self.model), "answers": self.prediction.name, "path": repr(self.process.path),
            "tokenizer": repr(self.tokenizer), "draws": f"{usual.sampler} {usual.solver}, {steps} steps",
            **({"guidance": f"{self.guidance:g}{where}"} if guided else {}),
            **({"classes": shown.words(self.class_names)} if self.class_names else {}),
            **({"words": f"{len(self.vocabulary.words):,}"} if self.vocabulary else {}),
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"Pipeline({self.model!r}, {self.prediction!r} on {self.process.path!r}, {self.tokenizer!r})"

    def _repr_html_(self) -> str:
        return shown.card(type(self).__name__, shown.facts(self.facts()), self.curves())

    def curves(self) -> str:
        """Its path as HTML."""
        path = self.process.path
        t = [path.part(u) for u in np.linspace(0, 1, 102)[1:]]
        signal, noise = np.array([path.level(at) for at in t]).T
        return shown.levels("its path from data to noise", t, signal, noise)

    def of_frames(self, frames: int) -> Pipeline:
        """The same model, drawing clips of so many frames, or with 1 pictures. Raises ValueError for a model of pictures."""
        if not isinstance(self.model, SpacetimeDiT):
            raise ValueError(f"--frames {frames}: this model draws pictures only")
        return replace(self, model=self.model.of_frames(frames))

    @property
    def ladder(self) -> Schedule | None:
        """The ladder of noise levels that the model was trained on; None if its path is continuous."""
        return self.process.path if isinstance(self.process.path, Schedule) else None

    @property
    def prediction(self) -> Prediction:
        """The model's answer, its output F."""
        return self.process.answer

    def steps(self, wanted: int | None, flag: str = "--steps", usual: int | None = None) -> int:
        """A number of steps; None: the usual one, or as many as there are. Raises ValueError for more than there are rungs."""
        return steps_of(self.ladder, usual or self.usual.steps, wanted, flag)

    def in_short(self, steps: int, most: int = 25) -> int:
        """The steps of a quick look, `most` of them, at samples that are otherwise drawn in so many."""
        return min(most, steps)

    def quick_walk(self, *, film: bool = False) -> tuple[int | None, str]:
        """(steps, solver) of the command where nothing is asked for; (None, "") where the usual walk is quick enough."""
        if self.ladder is None or self.usual.few:
            return None, ""
        quick = self.usual.quick
        return min(quick.film if film else quick.steps, self.ladder.T), quick.solver

    def walk_words(self, sampler: str, solver: str, eta: float, path: str = "") -> tuple[str, str]:
        """(sampler, solver), the usual ones where none is named."""
        return words_of_walk(self.usual, sampler, solver, eta, path)

    def labels(self, wanted: Wanted | None, n: int | None = None) -> Labels | None:
        """Labels from numbers, or from texts ("0-9", "shirt,bag"; None: all), repeated in turn to n of them.

        Of a model of captions: rows from one text, several, or rows; None: some captions of its pictures.
        None for an unconditional model, which takes no labels: ValueError if any are given.
        """
        if self.vocabulary is not None:
            return rows_of(self.vocabulary, self.examples() if wanted is None else wanted, n)
        return classes_of(self.model.condition.count, self.class_names, wanted, n)

    def examples(self) -> list[str]:
        """The captions that were kept with a model, so that it draws something where nothing is asked for."""
        kept = (self.meta or {}).get("data", {}).get("captions")
        if not is_a(kept, list[str]) or not kept:
            raise ValueError("no captions are kept with this model: say what it draws, with --prompt")
        return list(kept)

    @spelled_out()
    def settings(
        self,
        *,
        steps: int | None = None,
        spacing: str = "",
        path: str = "",
        shift: float | None = None,
        guidance: float | None = None,
        interval: tuple[float, float] | None = None,
        sampler: str = "",
        solver: str = "",
        eta: float = 0.0,
        seed: int = 0,
        shards: int = 0,
        precision: str = "float32",
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        rising: bool | None = None,
    ) -> Sampling:
        """How samples are drawn; words that are not set are the usual ones of the process.

        steps : how many (None: as is usual for the process, or all rungs).
        spacing : which rungs of a ladder, "trailing" if none is named; other paths have a grid of their own.
        path : the coordinates of the walk, "" those of the training, "vp", "straight" or "ve".   shift : of the straight grid.
        guidance : None: the pipeline's own scale in its own interval; an explicit scale applies on the whole path.
        interval : two parts of the path that the model was trained on.
        solver : "euler", of second order "ab2", "ab2_arc", "dpm_2m", with two calls per step "heun", "heun_edm"; no fresh noise.
        sampler : "ddim" (no fresh noise, unless η) or "ddpm".   eta : DDIM's fresh noise, 0 none, 1 as much as DDPM.
        seed : of all noise.   shards, precision : as in `md.sample`.
        temperature, top_k, top_p, rising : of models that write codes alone (writer.py).
        Raises ValueError for those, for an unknown word, for a spacing or a shift of another path, and for too many rungs.
        """
        if any(word is not None for word in (temperature, top_k, top_p, rising)):
            raise ValueError("temperature, top_k, top_p and rising guidance are of models that write codes; this one denoises")
        if spacing:
            check_word("spacing", spacing, SPACINGS)
        sampler, solver = self.walk_words(sampler, solver, eta, path)
        interval = interval or (self.interval if guidance is None else (0.0, 1.0))
        guidance = self.guidance if guidance is None else guidance
        return Sampling(
            self.usual.steps if steps is None and self.ladder is None else steps,
            spacing=SPACINGS[spacing] if spacing else None, path=other_path(self.process.path, path, shift),
            solver=SOLVERS[solver], fresh=SAMPLERS[sampler](eta, self.model.second_half), limit=self.tokenizer.limit, seed=seed,
            guidance=1.0 if self.model.condition.null is None else guidance, interval=interval, shards=shards,
            precision=precision,
        )  # fmt: skip

    @overload
    def latents(
        self, labels: Labels | None, *, n: int = 16, x_T: Array | None = None, trace: Literal[False] = False,
        progress: Progress | None = None, **options: Unpack[Settings],
    ) -> Pixel: ...  # fmt: skip

    @overload
    def latents(
        self, labels: Labels | None, *, n: int = 16, x_T: Array | None = None, trace: Literal[True],
        progress: Progress | None = None, **options: Unpack[Settings],
    ) -> Iterator[Moment | Array]: ...  # fmt: skip

    @spelled_out(settings)
    def latents(
        self,
        labels: Labels | None,
        *,
        n: int = 16,
        x_T: Array | None = None,
        trace: bool = False,
        progress: Progress | None = None,
        **options: Unpack[Settings],
    ) -> Pixel | Iterator[Moment | Array]:
        """The model's x_0, which `sample` decodes, or with trace=True an iterator over its Moments.

        n : how many, if there are no labels.   x_T : the noise to start from.   progress : as in `md.sample`.
        options : those of `settings`, which says what is raised.
        """
        y, n = (None, n) if labels is None else (np.asarray(labels), len(labels))
        network, settings = self.model, self.settings(**options)
        if isinstance(network, FlowMapDiT):
            refuse_other_walks(settings)
            return draw(in_steps(network, len(settings.times(self.process.path))), self.process, y, settings, n=n, x_T=x_T,
                        trace=trace, progress=progress)  # fmt: skip
        if isinstance(network, GuidedDiT):
            one, settings = in_one_call(network, settings)
            return draw(one, self.process, y, settings, n=n, x_T=x_T, trace=trace, progress=progress)
        return draw(network, self.process, y, settings, n=n, x_T=x_T, trace=trace, progress=progress)

    def pictures(self, x_0: Array) -> Pixel:
        """The model's x_0 decoded to pictures (B, C, H, W), or clips (B, C, T, H, W), in [-1, 1] on the host, padding cut off."""
        x, c = self.tokenizer.decode(x_0), self.crop
        return np.clip(x[..., c : x.shape[-2] - c, c : x.shape[-1] - c], -1, 1)

    def encode(self, x: Array) -> Array:
        """Pictures or clips in [-1, 1]  ->  x_0: scaled latents, or the pictures themselves.

        Pictures without the padding, as `sample` gives them, are padded with black again.
        """
        if (c := self.crop) and x.ndim > 3:
            C, *frames, H, W = x.shape[1:]
            if not self._fits(C, *frames, H, W) and self._fits(C, *frames, H + 2 * c, W + 2 * c):
                x = xp_of(x).pad(x, [(0, 0)] * (x.ndim - 2) + [(c, c)] * 2, constant_values=-1)
        return self.tokenizer.encode(x)

    def _fits(self, C: int, *size: int) -> bool:
        """Whether pictures of this size become what the model draws."""
        try:
            return tuple(self.tokenizer.shape(C, *size)) == tuple(self.model.shape)
        except ValueError:
            return False

    @spelled_out(settings)
    def sample(
        self,
        labels: Wanted | None = None,
        *,
        n: int | None = None,
        x_T: Array | None = None,
        progress: Progress | None = None,
        **options: Unpack[Settings],
    ) -> Pictures:
        """Pictures (B, C, H, W), or clips (B, C, T, H, W), in [-1, 1], which a notebook shows.

        labels : classes as text ("0-9", "shirt,bag") or numbers, captions of a model that reads words; None: each in turn.
        n : how many, the labels repeated in turn, but rows of captions are left as they are.
        The other keywords are those of `settings` and `latents`.
        """
        chosen = self.labels(labels, n)
        x_0 = self.latents(chosen, n=n or 16, x_T=x_T, progress=progress, **options)
        return Pictures(self.pictures(x_0), self.names_of(chosen))

    def names_of(self, labels: Labels | None) -> tuple[str, ...]:
        """The class or the caption of each sample, as words; none if there are none."""
        if labels is None or (self.vocabulary is None and not self.class_names):
            return ()
        return tuple(self.vocabulary.texts(labels) if self.vocabulary else [self.class_names[int(k)] for k in labels])
