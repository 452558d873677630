"""Complete runs as one value: data, tokenizer, model, process, length of training, sampling."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from minidit.models.autoencoder import AutoencoderConfig
from minidit.models.dit import DIT
from minidit.models.flux_config import FLUX
from minidit.models.gpt import GPTConfig
from minidit.models.mmdit_config import MMDIT
from minidit.models.spacetime_config import SPACETIME
from minidit.models.unet_config import UNET
from minidit.models.var import VARConfig
from minidit.models.vq import MultiScaleVQConfig, VQConfig
from minidit.processes.autoencode import AutoencodeConfig
from minidit.processes.classify import ClassifyConfig
from minidit.runs.kinds import ModelConfig, PixelsConfig, TokenizerConfig
from minidit.runs.process_config import ProcessConfig
from minidit.runs.process_kinds import DDPMConfig, EDMConfig, RectifiedFlowConfig
from minidit.runs.token_kinds import RasterConfig, ScalesConfig
from minidit.training.loop import LoopConfig

SHIPPED = Path(__file__).parent.parent / "weights"  # those that come with the package


@dataclass(frozen=True)
class DataConfig:
    """The pictures: "digits", "fashion", "emoji", "shapes", "clips", or a path; size, channels, frames None: as they are."""

    source: str = "fashion"  # "digits", "fashion", "emoji", "shapes", "clips", or a path
    size: int | None = None  # of pictures that are resized to a square; None: as they are
    channels: int | None = None  # 1 grey, 3 colour; None: as the pictures are
    frames: int | None = None  # of every clip; pictures have none
    pictures: float = 0.0  # of the loss on clips: the share of their single frames, so that the model draws pictures, too
    tokenizer: str = ""  # a file or a run with a trained tokenizer; else one is trained first
    init: str = ""  # a file or a run whose model is fine-tuned; else it starts from random weights
    held_out: int | None = None  # pictures; None: one in ten, at most 1,000, of a set without a test part
    skip_bad: bool = False  # leave out files of a folder that cannot be read
    flip: bool = False  # training pictures are mirrored with probability 1/2
    crop: int = 0  # and shifted by up to so many pixels
    cache: str = ""  # a folder for sets that are larger than memory; "": the user's cache folder; "off": none

    def __post_init__(self) -> None:
        for name in ("held_out", "crop"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be 0 or more")
        if self.frames is not None and self.frames < 2:
            raise ValueError(f"frames = {self.frames}: a clip has at least two")
        if not 0 <= self.pictures < 1:
            raise ValueError(f"pictures = {self.pictures}: the share of single frames in the loss must be 0 or more, and below 1")


@dataclass(frozen=True)
class SampleConfig:
    """Sampling of pictures, at the end and during training."""

    steps: int = 50  # of the walk that draws pictures
    guidance: float = 2.0  # how strictly pictures follow their class; 1 is plain conditional
    interval: tuple[float, float] = (0.0, 1.0)  # the part (low, high] of the path that is guided
    seed: int = 0  # of the noise of these pictures
    every: int = 0  # updates between two grids of samples while the model is trained; 0: none
    save_every: int = 1000  # updates of any phase between two saved states
    keep: int = 2  # states of a phase that are kept, besides the one with the lowest held-out loss

    def __post_init__(self) -> None:
        if not 0 <= self.interval[0] < self.interval[1] <= 1:
            raise ValueError(f"interval {self.interval} must be two parts of the path, 0 ≤ low < high ≤ 1")
        for name, least in (("steps", 1), ("every", 0), ("save_every", 1), ("keep", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least {least}")


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on; saved with it as config.toml, one section per field."""

    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=AutoencoderConfig)
    model: ModelConfig = field(default_factory=lambda: DIT["demo"])
    process: ProcessConfig = field(default_factory=DDPMConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    tokenizer_train: AutoencodeConfig = field(default_factory=AutoencodeConfig)
    judge_train: ClassifyConfig = field(default_factory=ClassifyConfig)


# Small pictures in minutes: v-prediction learns several times faster than ε here (ε hardly determines x_0 where noise
# is high, and 50 guided steps show it); a large rate with warm-up and cosine decay to nearly zero needs no long averaging.
_V = DDPMConfig(prediction="v", schedule="cosine")
_FAST = LoopConfig(
    lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=100, final_lr=0.05, clip=1.0, ema=0.995, steps=3000, batch_size=64
)

PRESETS: dict[str, RunConfig] = {
    "demo": RunConfig(
        process=_V,
        train=replace(_FAST, steps=1800),
        sample=SampleConfig(guidance=4.0, interval=(0.2, 0.7), every=450, save_every=1800),
        tokenizer_train=AutoencodeConfig(steps=750),
        judge_train=ClassifyConfig(steps=400),
    ),
    "quick": RunConfig(  # the demo's clothes, on the latents of the shipped autoencoder, which need no training
        data=DataConfig(tokenizer=str(SHIPPED / "fashion")),
        process=_V,
        train=replace(_FAST, steps=700, warmup=30, ema=0.99),
        sample=SampleConfig(steps=20, guidance=4.0, interval=(0.2, 0.7), save_every=1000),
        judge_train=ClassifyConfig(steps=150),
    ),
    "digits": RunConfig(
        data=DataConfig(source="digits"),
        tokenizer=PixelsConfig(),
        model=DIT["digits"],
        process=_V,
        train=_FAST,
        sample=SampleConfig(every=500),
        judge_train=ClassifyConfig(steps=150),
    ),
    "fashion": RunConfig(
        model=DIT["fashion"],
        process=_V,
        train=replace(_FAST, steps=7000, lr=2e-3, warmup=200, ema=0.999),
        sample=SampleConfig(guidance=4.0, interval=(0.2, 0.7), every=2000, save_every=2000),
        tokenizer_train=AutoencodeConfig(steps=3000),
        judge_train=ClassifyConfig(steps=1500),
    ),
    "own": RunConfig(
        tokenizer=AutoencoderConfig(widths=(24, 48, 96)),
        process=_V,
        train=replace(_FAST, steps=3000),
        sample=SampleConfig(every=500, save_every=500),
        tokenizer_train=AutoencodeConfig(steps=1500),
    ),
}
# Pictures from words, in pixels: large patches make short sequences, x_0 as the answer keeps their many numbers learnable, and
# more weight on little noise makes edges. Names of emoji are words that a few pictures have: long training, not large batches.
_X_0 = RectifiedFlowConfig(prediction="x_0", times="logit_normal", times_mean=0.3, times_uniform=0.15, loss_weight="by_noise")
PRESETS["words"] = RunConfig(
    data=DataConfig(source="emoji"),
    tokenizer=PixelsConfig(),
    model=DIT["words"],
    process=_X_0,
    train=replace(_FAST, steps=30000, batch_size=32, lr=1.5e-3, final_lr=0.03, weight_decay=0.02, ema=0.999),
    sample=SampleConfig(steps=20, every=5000, save_every=2500),
)
# The order of words matters here, so two streams: a bag of words does not say which of two things is red.
PRESETS["scenes"] = replace(
    PRESETS["words"],
    data=DataConfig(source="shapes"),
    model=replace(MMDIT["words"], hidden_size=96),
    train=replace(PRESETS["words"].train, steps=4000, lr=2e-3),
)
# Clips, in pixels: a token is a box of all frames, so that a motion is learned inside of tokens; x_0 as the answer, and more of
# the times noisy, since where a digit is and how it moves is decided there, before what it looks like.
PRESETS["clips"] = RunConfig(
    data=DataConfig(source="clips", frames=4),
    tokenizer=PixelsConfig(),
    model=SPACETIME["clips"],
    process=replace(_X_0, shift=2.0),
    train=replace(_FAST, steps=3000, lr=2e-3),
    sample=SampleConfig(steps=16, guidance=1.0, every=1000, save_every=1000),
)
# Pictures as numbers: a tokenizer of codes, then a transformer that writes them. Small networks are right for minutes; the angles
# of places are spread for a grid of 8 × 8. A tokenizer that is trained longer
# keeps more texture, and its codes are harder to guess.
_WRITTEN = LoopConfig(
    lr=3e-3, betas=(0.9, 0.95), weight_decay=0.05, warmup=100, final_lr=0.03, clip=1.0, ema=0.99, steps=8500, batch_size=32
)
PRESETS["raster"] = RunConfig(
    tokenizer=VQConfig(),
    model=GPTConfig(theta=100.0),
    process=RasterConfig(),
    train=_WRITTEN,
    sample=SampleConfig(guidance=1.5, every=2000, save_every=2000),
    tokenizer_train=AutoencodeConfig(lr=4e-3, steps=2200),
    judge_train=ClassifyConfig(steps=1500),
)
PRESETS["scales"] = replace(
    PRESETS["raster"],
    tokenizer=MultiScaleVQConfig(),
    model=VARConfig(),
    process=ScalesConfig(),
    train=replace(_WRITTEN, steps=4000),
    sample=replace(PRESETS["raster"].sample, guidance=2.0),
    tokenizer_train=replace(PRESETS["raster"].tokenizer_train, steps=2600),
)

# The same networks and lengths of training on the other paths. The interval of guidance is at the same noise: where a cosine
# ladder is at 0.2 and 0.7, the straight path is at 0.25 and 0.66, as is EDM's in its own parts. EDM's σ_max of 80 is for
# millions of pictures; noise of 20 drowns these just as well, and a short training meets it.
for _name in ("digits", "fashion"):
    _base = PRESETS[_name]
    _guided = replace(_base.sample, interval=(0.25, 0.66)) if _name == "fashion" else _base.sample
    PRESETS[f"{_name}-flow"] = replace(_base, process=RectifiedFlowConfig(), sample=_guided)
    PRESETS[f"{_name}-edm"] = replace(_base, process=EDMConfig(sigma_max=20.0), sample=replace(_guided, steps=18))


def networks() -> dict[str, ModelConfig]:
    """Name -> the sizes of a network: every preset's under its name, and those of the papers. One name is one network."""
    papers: dict[str, ModelConfig] = {**DIT, **SPACETIME, **UNET, **MMDIT, **FLUX}
    return {name: preset.model for name, preset in PRESETS.items()} | {n: c for n, c in papers.items() if n not in PRESETS}
