"""A run is a list of phases, and the same code trains each of them.

    tokenizer    pictures -> latents            unless the model works on pixels, or a trained one is named
    model        noise -> x_0                   on the x_0 that the tokenizer makes
    judge        pictures -> class, features    if samples are measured

How a phase is trained, saved and gone on with is in trainer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from minidit.checkpoint import CheckpointError
from minidit.data import Dataset, cache
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.kinds import Network
from minidit.outgoing import silent
from minidit.processes.autoencode import Reconstruction
from minidit.processes.classify import Classification
from minidit.processes.codes import TokenNetwork, codes_in_use, codes_laid, numbers_of, quantisation_of
from minidit.processes.joint import Joint
from minidit.processes.pairs import digest_of
from minidit.random import Philox
from minidit.runs import folder as files
from minidit.runs import former
from minidit.runs.checks import check_start
from minidit.runs.fitting import augment_of, facts_of, fitted, parts_of, with_tokenizer_of_init
from minidit.runs.kinds import PixelsConfig, TokenizerNetwork, assembled, network_of
from minidit.runs.lengths import lengthened
from minidit.runs.loading import load_pipeline, pipeline_of
from minidit.runs.lock import locked
from minidit.runs.phase import Note, Phase, Progress, Record, Stopped, Tell
from minidit.runs.pipeline import Pipeline
from minidit.runs.presets import SHIPPED
from minidit.runs.process_config import Learner
from minidit.runs.show import save_grid
from minidit.runs.state import way_on
from minidit.runs.token_kinds import TokensConfig
from minidit.runs.trainer import Trainer
from minidit.runs.weights import weights_of
from minidit.training.loop import Loop, RunError
from minidit.training.memory import explained
from minidit.training.process import Process
from minidit.training.ranks import ranks
from minidit.training.source import Augmented, Source, source_of

DRAWS = {"tokenizer": 1, "model": 2, "judge": 3}  # streams of the initial weights
LOOKS, LOOKED_AT = 10, 500  # how often codes in use are counted while a tokenizer is trained, and on how many held-out pictures


class Run(Trainer):
    """A run: its pictures or clips, its folder, and the phases that it consists of. Tokenizer and judge see single frames."""

    def data(self) -> tuple[Dataset, Dataset | None]:
        """(training set, held-out set or None)."""
        self.parts = parts_of(self.config.data, self.cache(), self.leave_out)
        return self.parts.train, self.parts.held_out

    def cache(self) -> cache.Cache | None:
        """The cache of large sets that the configuration names."""
        named = cache.named(self.config.data.cache)
        return named and replace(named, tell=self.note, progress=self.progress)

    def fit_to(self, data: Dataset) -> None:
        """Fills in the settings determined by the data. Raises ValueError if settings conflict."""
        config = with_tokenizer_of_init(self.config)
        if config.data.tokenizer and not isinstance(config.tokenizer, PixelsConfig):
            own = former.file_of(self.folder, "tokenizer")  # a run that goes on needs nothing of another
            name = str(own) if self.existing and own.exists() else config.data.tokenizer
            config = replace(config, tokenizer=self.named_tokenizer(data, name).config)
        self.config, self.facts = fitted(config, data), facts_of(data, self.parts)

    def create(self, *, overwrite: bool = False) -> None:
        """Makes the folder. Raises RunError if a run is there already, or any other files, or if it cannot be written."""
        self.folder = self.ranks.same(self.folder)
        self.ranks.wait()  # until every rank has seen what was there before
        if self.ranks.first:
            check_start(self.folder, self.config)
            skipped = self.parts.train.skipped if self.config.data.skip_bad and self.parts else None
            files.create(self.folder, self.config, self.device, overwrite=overwrite, skipped=skipped)
            self.begun = (self.folder / "config.toml").read_bytes()
        self.ranks.wait()

    def lengthen(self, lengths: dict[str, int]) -> None:
        """Other numbers of updates for some phases, recorded in config.toml.

        Raises RunError for fewer updates than a phase has made, and for more of a tokenizer whose latents were trained on.
        """
        config, history, notes = lengthened(self.folder, self.config, lengths)
        self.ranks.wait()  # until every rank has read what there was
        if config != self.config and self.ranks.first:
            with locked(self.folder), files.failing(self.folder, way_on(self.folder, "model")):
                files.record_change(self.folder, config, history)
            for note in notes:
                self.note(note)
        self.config = config

    # ------------------------------------------------------------------------------------------------ the phases

    def train(self, data: Dataset, held_out: Dataset | None = None) -> Pipeline:
        """Trains tokenizer and model, each from its latest state; a finished one is loaded.

        held_out : pictures by which the states are compared. A start that fails before its first update leaves nothing behind.
        """
        try:
            with self._alone("model"):
                try:
                    return self._trained_pipeline(data, held_out)
                except Exception as error:
                    if self.begun is not None and not isinstance(error, Stopped) and not files.has_checkpoint(self.folder):
                        files.undo(self.folder)
                        files.remove_empty(self.folder)
                    raise
        finally:
            if self.ranks.first:
                with suppress(OSError):  # it holds a run
                    self.folder.rmdir()

    @contextmanager
    def _alone(self, phase: str) -> Iterator[None]:
        """No other process works in the folder; what a killed process left has been mended.

        Raises RunError if another process works there or has begun another run there, or if a file cannot be written.
        """
        self.work = phase
        with locked(self.folder) if self.ranks.first else nullcontext():
            if self.begun is not None and not files.is_still(self.folder, self.begun):
                raise RunError(f"{self.folder}: another process has begun a run there: choose another --out")
            try:
                if self.ranks.first:
                    files.recover(self.folder)
                    files.sweep(self.folder)
                yield
            except OSError:  # what is safe is known only now
                with files.failing(self.folder, way_on(self.folder, phase)):
                    raise

    def _trained_pipeline(self, data: Dataset, held_out: Dataset | None) -> Pipeline:
        c = self.config
        if len(set(self.ranks.all_of(self.facts.get("digest")))) > 1:
            raise RunError(f"the ranks read different pictures from {c.data.source}: give all of them the same files")
        network = self.tokenizer(data, held_out)
        tokenizer = assembled(c.process, network, self.device)[0]
        source = tokenizer.source(data, augment_of(c.data), self.cache())
        if network is not None:
            self.save("tokenizer", network)  # again: the scale of its latents has been measured on these pictures
        with explained(c.model, c.train, self.device):
            model = self.finished("model")
            if model is None:
                few = None if held_out is None else tokenizer.held_out(held_out, self.cache())
                model = self.trained(self.model_phase(network, source, few))
        return pipeline_of(c, model, network, self.header())

    def tokenizer(self, data: Dataset, held_out: Dataset | None = None) -> TokenizerNetwork | None:
        """The tokenizer's network: loaded, or trained on these pictures; None for pixels."""
        if isinstance(self.config.tokenizer, PixelsConfig):
            return None
        name = self.config.data.tokenizer
        existing = self.finished("tokenizer") or (name and self.named_tokenizer(data, name))
        network: TokenizerNetwork = existing or self.trained(self.tokenizer_phase(data, held_out))
        return network

    def named_tokenizer(self, data: Dataset, name: str) -> TokenizerNetwork:
        """The trained network of a file or a run. Raises CheckpointError if it does not fit these pictures."""
        network = weights_of(name, "tokenizer", self.device)[0]
        if not isinstance(network, TokenizerNetwork):
            raise CheckpointError(f"{name}: a {type(network).__name__}, not a tokenizer")
        if (theirs := network.config.channels) != data.channels:
            whose = "that comes with minidit" if Path(name).is_relative_to(SHIPPED) else f"in {name}"
            raise CheckpointError(f"the tokenizer {whose} is for pictures of {counted(theirs)}, these have {data.channels}: give "
                                  f"--channels {theirs}, or train another tokenizer (--preset own does)")  # fmt: skip
        return network

    def tokenizer_phase(self, data: Dataset, held_out: Dataset | None = None) -> Phase[TokenizerNetwork]:
        """The phase that learns to reconstruct pictures."""
        config = self.config.tokenizer_train
        network = network_of(self.config.tokenizer, Philox(config.seed, DRAWS["tokenizer"]), device=self.device)
        few = None if held_out is None else source_of(held_out.pictures(), self.device)
        source: Source = source_of(data.pictures(), self.device)
        if augment := augment_of(self.config.data):
            source = Augmented(source, augment)
        if not isinstance(network, TokenNetwork):
            return Phase("tokenizer", network, Reconstruction(config.kl_weight), source, config, few)
        process, some = quantisation_of(network, config), None if held_out is None else held_out.pictures().x_0(slice(LOOKED_AT))

        def look(loop: Loop) -> Record:
            codes_laid(loop)
            if some is None or loop.done % max(1, config.steps // LOOKS):
                return {}
            used, perplexity = codes_in_use(numbers_of(network, some), network.config.vocabulary)
            self.note(f"tokenizer: {used} of {network.config.vocabulary} codes in use, perplexity {perplexity:.0f}")
            return {"codes_in_use": used, "perplexity": perplexity}

        return Phase("tokenizer", network, process, source, config, few, after_update=look)

    def model_phase(self, tokenizer: TokenizerNetwork | None, source: Source, held_out: Source | None = None) -> Phase[Network]:
        """The phase that learns to denoise the tokenizer's x_0; it draws grids during training."""
        c = self.config
        network = network_of(c.model, Philox(c.train.seed, DRAWS["model"]), device=self.device)

        def draw(loop: Loop) -> Record:
            if c.sample.every and loop.done % c.sample.every == 0 and loop.done < c.train.steps:
                average = network_of(c.model, device=self.device)
                average.flat[...] = loop.optimiser.average
                save_grid(self.folder, pipeline_of(c, average, tokenizer, self.header()), c.sample, loop.done)
            return {}

        teacher = self.teacher()
        learner = Learner(network, teacher, self.cache())
        source = c.process.source(source, learner)
        few = None
        if held_out is not None and c.process.compared:
            few = c.process.source(held_out, replace(learner, held_out=True))
        if isinstance(c.process, TokensConfig):
            assert isinstance(tokenizer, TokenNetwork)
            process: Process = c.process.written(tokenizer)
        else:
            process = c.process.process(network, source, teacher)
            process = Joint(process, c.data.pictures) if c.data.pictures else process
        return Phase("model", network, process, source, c.train, few, c.data.init, draw)

    def teacher(self) -> Pipeline | None:
        """The trained run that the process learns from, if it learns from one. Its weights are among the facts of this run."""
        name = self.config.process.teacher()
        if not name:
            return None
        teacher = load_pipeline(Path(name), device=self.device)
        self.facts = {**self.facts, "teacher": digest_of(teacher.model)}
        return teacher

    def judge(self, data: Dataset, held_out: Dataset | None = None) -> Classifier:
        """The small classifier that judges samples: loaded, or trained on these pictures."""
        with self._alone("judge"):
            network: Classifier = self.finished("judge") or self.trained(self.judge_phase(data, held_out))
        return network

    def judge_phase(self, data: Dataset, held_out: Dataset | None = None) -> Phase[Classifier]:
        """The phase that learns to classify pictures; it runs on the host, because it is short."""
        config = self.config.judge_train
        shape = ClassifierConfig(data.channels, data.size, data.num_classes)
        few = None if held_out is None else source_of(held_out.pictures())
        network = Classifier(shape, Philox(config.seed, DRAWS["judge"]))
        return Phase("judge", network, Classification(), source_of(data.pictures()), config, few)


def counted(channels: int) -> str:
    """So many channels, in words."""
    return "1 channel" if channels == 1 else f"{channels} channels"


def resume(
    folder: Path, *, device: str = "cpu", tell: Tell = silent, note: Note = silent, progress: Progress = silent
) -> Run:
    """The Run in a folder, with the configuration and the pictures it was started with."""
    if ranks().first and (folder / files.REPLACED).exists():
        with locked(folder), files.failing(folder, "mend it and start again"):
            files.recover(folder)
    ranks().wait()
    run = Run(folder, files.config_of(folder), device=device, tell=tell, note=note, progress=progress)
    run.existing = True
    run.leave_out = files.skipped_of(folder) if run.config.data.skip_bad else None
    return run
