"""`minidit info NAME`: all that has this name, which may be shipped weights, a run, a data set, a preset, and a network."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from minidit.incoming import printable

if TYPE_CHECKING:
    from minidit.data import Dataset
    from minidit.diffusion.schedule import Schedule
    from minidit.runs.kinds import ModelConfig
    from minidit.runs.pipeline import Pipeline
    from minidit.runs.writer import Writer

WIDE = 100


def about(name: str, everything: bool) -> None:
    """Prints all that has this name. Raises ValueError for a name that nothing has.

    everything : also all words of a model of captions, all captions of a data set
    """
    found = [lines for reading in (weights, run, data, preset, network) for lines in reading(name, everything)]
    if not found:
        from minidit.cli.folders import run_meant
        from minidit.data.embedded import EMBEDDED
        from minidit.keywords import meant
        from minidit.runs.presets import PRESETS, networks

        known = dict.fromkeys([*shipped(), *EMBEDDED, *PRESETS, *networks()])
        raise ValueError(f"{name}: no run folder or file, and no weights, data set, preset or network has this name"
                         + (meant(name, known) or run_meant(name) or " (minidit info lists them)"))  # fmt: skip
    print("\n\n".join("\n".join(lines) for lines in found))


def shipped() -> list[str]:
    """The names of the shipped weights, first those that are used where none is named."""
    from minidit.runs.presets import SHIPPED

    names = sorted(place.name for place in SHIPPED.glob("*") if place.is_dir())
    return sorted(names, key=lambda name: name != "fashion")


def megabytes(folder: Path) -> str:
    return f"{sum(f.stat().st_size for f in folder.glob('*.safetensors')) / 1e6:.1f} MB"


def fields(title: str, facts: dict[str, str]) -> list[str]:
    """A title, and name and value of each fact, long ones on several lines."""
    lines = [title]
    for name, value in facts.items():
        first, *others = textwrap.wrap(value, WIDE) or [""]
        lines += [f"  {name:14s} {first}", *(" " * 17 + line for line in others)]
    return lines


def listed(words: list[str]) -> list[str]:
    return textwrap.wrap(", ".join(words), WIDE + 17, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def weights(name: str, everything: bool) -> Iterator[list[str]]:
    """Shipped weights."""
    from minidit.runs.loading import load
    from minidit.runs.presets import SHIPPED

    if name in shipped():
        title = f"{name}: shipped weights, {megabytes(SHIPPED / name)}; minidit sample --weights {name} draws with them"
        yield _pipeline(title, load(weights=name), f"minidit info {name} --all", everything)


def run(name: str, everything: bool) -> Iterator[list[str]]:
    """A run folder, or another project's; a file with a single network."""
    from minidit.checkpoint import describe
    from minidit.checkpoint.weights import open_weights
    from minidit.runs.loading import load
    from minidit.runs.pipeline import Pipeline

    path = Path(name)
    if not path.exists():
        return
    if path.suffix.lower() in (".gif", ".npz") and path.is_file():
        raise ValueError(f"{name}: says nothing of how it was made; a .png of minidit sample does")
    if path.suffix.lower() == ".png" and path.is_file():
        from minidit.data.decode import opened

        with opened(path) as picture:
            how = str(picture.info.get("Description", "nothing in it says how it was made"))
            lines = [f"  {printable(line)}" for line in how.splitlines()]
            yield [f"{name}: a picture of {picture.width} x {picture.height}", *lines]
        return
    loaded = load(path)
    if isinstance(loaded, Pipeline):
        yield _pipeline(f"{name}: a trained run", loaded, f"minidit info {name} --all", everything)
    else:
        arrays = [f"  {key}: {' x '.join(map(str, array.shape))}" for key, array in open_weights(path).arrays.items()]
        more = arrays if everything else [f"  minidit info {name} --all lists its arrays"]
        yield [f"{name}: a single network", *str(describe(name)).splitlines(), *more]


def data(name: str, everything: bool) -> Iterator[list[str]]:
    """An embedded data set."""
    from minidit.data.embedded import EMBEDDED

    if name in EMBEDDED:
        yield _data_set(name, EMBEDDED[name], everything)


def preset(name: str, everything: bool) -> Iterator[list[str]]:
    """A preset: what `minidit train --preset` trains."""
    from minidit.runs.config import tables_of, to_toml
    from minidit.runs.presets import PRESETS

    if name in PRESETS:
        table = [f"  minidit info {name} --all shows all its settings"]
        if everything:
            table = to_toml(tables_of(PRESETS[name])).rstrip().splitlines()
        yield [f"{name}: a preset; minidit train --preset {name} trains it", *table]


def network(name: str, everything: bool) -> Iterator[list[str]]:
    """The sizes of a network."""
    from minidit.models.words import OfWords
    from minidit.runs.presets import networks
    from minidit.training.memory import gb

    config = networks().get(name)
    if config is not None:
        call = f"one sample of {' x '.join(map(str, config.shape))}"
        call += f" and {config.words} words" if isinstance(config, OfWords) and config.words else ""
        facts = {"a call": call, "parameters": f"{config.parameters():,} ({gb(4 * config.parameters())} in float32)",
                 "multiply-adds": f"{config.macs():,} in a call with one picture", "sizes": repr(config)}  # fmt: skip
        yield fields(f"{name}: the sizes of a network{how_to_train(name, config)}", facts)


def how_to_train(name: str, config: ModelConfig) -> str:
    """How a network of these sizes is trained here, or why it cannot be, as the end of a sentence."""
    from minidit.models.words import OfWords

    if not isinstance(config, OfWords):
        return f"; minidit train --network {name}"
    return f"; minidit train --data emoji --network {name}" if config.vocabulary else ", which reads what a text encoder makes"


def _pipeline(title: str, pipeline: Pipeline, all_words: str, everything: bool) -> list[str]:
    """What a model is, what a picture costs, and what it can be asked for."""
    from minidit.runs.writer import Writer

    config, facts, vocabulary = pipeline.model.config, pipeline.facts(), pipeline.vocabulary
    if config is not None:
        facts["multiply-adds"] = f"{config.macs():,} in a call with one picture"
    steps, solver = pipeline.quick_walk()
    if pipeline.ladder is not None and steps and config is not None:
        calls = calls_of(pipeline, pipeline.ladder, steps, solver)
        cost = f"{calls} calls, one per step and two where it is guided, {calls * config.macs():,} multiply-adds per picture"
        facts["minidit sample"] = f"{steps} steps of {solver}, unless another walk is asked for: {cost}"
    if isinstance(pipeline, Writer) and config is not None:
        calls = calls_of_writing(pipeline)
        twice = " and two where it is guided" if calls > pipeline.steps(None) else ""
        most = calls // pipeline.steps(None) * config.macs()
        facts["minidit sample"] = f"{calls} calls, one per pass{twice}, with a cache at most {most:,} multiply-adds per picture"
    if vocabulary is None:
        return fields(title, facts)
    facts["words"] += "" if everything else f"; {all_words} lists them"
    kept = (pipeline.meta or {}).get("data", {}).get("captions")
    if kept:
        facts["captions"] = "such as " + "; ".join(kept)
    return fields(title, facts) + (listed(list(vocabulary.words)) if everything else [])


def calls_of(pipeline: Pipeline, ladder: Schedule, steps: int, solver: str) -> int:
    """How often a picture asks the network: twice where it is guided."""
    from minidit.diffusion.guidance import interval

    how = pipeline.settings(steps=steps, solver=solver)
    low, high = (ladder.part(u) for u in how.interval)
    return sum(1 if interval(how.guidance, t, low, high) == 1 else 2 for t, _ in how.times(ladder))


def calls_of_writing(pipeline: Writer) -> int:
    """The same of a picture that is written as codes: a guided pass asks for it with and without its class."""
    return pipeline.steps(None) * (1 if pipeline.writing().guidance == 1 else 2)


def _data_set(name: str, read: Callable[[str | None], Dataset], everything: bool) -> list[str]:
    """How many pictures a data set has, and of what."""
    train, test = read("train"), read("test")
    facts = {"pictures": f"{len(train):,}, and {len(test):,} held out; {' x '.join(map(str, train.shape))}"}
    if train.class_names:
        facts["classes"] = ", ".join(train.class_names)
    title, texts = f"{name}: an embedded data set; minidit train --data {name}", list[str]()
    if train.vocabulary is not None:
        texts = sorted(set(train.vocabulary.texts(train.captions)))
        more = "" if everything else f" (minidit info {name} --all lists them)"
        facts["captions"] = f"{len(texts):,} different ones{more}, such as {'; '.join(texts[:: max(1, len(texts) // 6)][:6])}"
    return fields(title, facts) + ([f"  {text}" for text in texts] if everything else [])
