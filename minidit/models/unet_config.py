"""The sizes of a U-Net (models/unet.py): where its blocks are, and what they cost.

    block at s² pixels, C -> O      9 s² (C + O) O  [+ s² C O]  + 4 w O                       multiply-accumulates       (T.19)
                                    9 (C + O) O + 2 C + 4 O  [+ C O + O]  + (4 w + 1) O        numbers                    (T.20)
    attention at s² pixels          4 s² O² + 2 s⁴ O,   4 O² + 6 O

The brackets are the 1 × 1 convolution where C is not O; w is the first width, and the condition has 4 w numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from minidit.choices import check_words, one_of
from minidit.keywords import Named, suggesting
from minidit.models.backbone import Indivisible, OfPictures
from minidit.models.condition import check_dropout
from minidit.nn.memory import SampleMemory


class Place(NamedTuple):
    """A residual block from `channels` to `out` at a size, and whether attention follows."""

    level: int  # how often the picture has been halved
    channels: int
    out: int
    attention: bool

    @property
    def changes(self) -> bool:
        """Whether the number of channels changes."""
        return self.channels != self.out


@dataclass(frozen=True)
class Home:
    """Counts of stored numbers, which depend on the twins that run."""

    kept: int  # per number of a block's input and output: of a norm x and 1 + tanh, on a GPU x̂ and z; of a convolution x
    scaled: int  # per number of the output, more where the condition scales and shifts
    scores: int  # per logit of an attention
    working: Callable[[UNetConfig], int]  # numbers of the adjoint that runs


def in_the_arena(config: UNetConfig) -> int:
    """On a CPU every size of a picture that occurs has buffers of its own, which stay: pictures, and tiles of 6 × 6 (A.28)."""
    ins = {(p.level, p.channels) for p in config.places()} | {(0, config.in_channels)}
    across = [min(2, max(1, config.size[1] >> i >> 2)) for i in range(len(config.widths))]
    return round(sum(C * (5 * config.pixels(i) + 2.5 * 36 * across[i]) for i, C in ins))


def in_windows(config: UNetConfig) -> int:
    """On a GPU the windows of the largest convolution, and what goes with them."""
    return max(12 * p.channels * config.pixels(p.level) for p in config.places())


HOMES = {"cpu": Home(3, 2, 1, in_the_arena), "cuda": Home(4, 1, 0, in_windows)}


@suggesting
@dataclass(frozen=True)
class UNetConfig(OfPictures):
    """The sizes of a U-Net. Raises ValueError if they conflict."""

    input_size: int | tuple[int, int] = 8  # height and width of the (latent) picture
    in_channels: int = 4
    widths: tuple[int, ...] = (24, 48)  # channels at each size, which is halved between them
    blocks: int = 2  # residual blocks at each size; one more on the way up
    attention: tuple[int, ...] = (1,)  # the sizes whose blocks are followed by attention; 0 is the largest
    middle_attention: bool = True  # between the two blocks at the smallest size
    head_width: int = 0  # channels of a head; 0: one head
    groups: int = 8  # of the group norms; they divide the widths
    scale_shift: bool = False  # c scales and shifts the second norm's output, instead of being added before it
    resample: str = one_of("conv", ("conv", "resnet"))  # how sizes are halved and doubled: by a convolution, or by a whole block
    class_dropout_prob: float = 0.1  # how often training leaves the class out, which guidance needs
    num_classes: int = 10  # 0: unconditional
    learn_sigma: bool = False  # twice the channels: the second half is for the variance
    freq_shift: int = 1  # of the frequencies of time, N.10
    cosine_first: bool = False  # DDPM's embedding of time has the sine first, N.11
    even_padding: bool = False  # a halving convolution pads all four sides, not only below and right
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if not self.widths or min(*self.size, self.in_channels, *self.widths, self.blocks, self.groups, self.norm_eps) <= 0:
            raise ValueError(f"every size must be positive: {self}")
        check_dropout(self.num_classes, self.class_dropout_prob)
        if any(n % self.multiple for n in self.size):
            sides = " x ".join(map(str, self.size))
            raise Indivisible("input_size", self.multiple, f"input_size {sides} is not divisible by {self.multiple}")
        for width in self.widths:
            if width % self.groups or width % 2:
                raise ValueError(f"{width} channels cannot be cut into {self.groups} equal groups, or are odd")
        if any(not 0 <= level < len(self.widths) for level in self.attention):
            raise ValueError(f"attention {self.attention}: the sizes are 0 to {len(self.widths) - 1}")
        attentive = [self.widths[i] for i in self.attention] + [self.widths[-1]] * self.middle_attention
        if self.head_width < 0 or any(w % (self.head_width or w) for w in attentive):
            raise ValueError(f"widths {attentive} of attention are not divisible by head_width {self.head_width}")
        check_words(self)
        if self.freq_shift not in (0, 1):
            raise ValueError(f"freq_shift {self.freq_shift} must be 0 or 1")

    @property
    def multiple(self) -> int:
        """Height and width are halved once per size but the last."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def condition_width(self) -> int:
        """The width of c."""
        return 4 * self.widths[0]

    def heads(self, width: int) -> int:
        """The heads of an attention of this width."""
        return width // (self.head_width or width)

    def pixels(self, level: int) -> int:
        """Pixels of a picture that has been halved `level` times."""
        return (self.size[0] >> level) * (self.size[1] >> level)

    def down(self) -> list[list[Place]]:
        """The blocks of every size, on the way down."""
        w = self.widths
        return [
            [Place(i, w[max(i - 1, 0)] if j == 0 else w[i], w[i], i in self.attention) for j in range(self.blocks)]
            for i in range(len(w))
        ]

    def remembered(self) -> list[int]:
        """The channels of what the way down remembers, in order: the first convolution, every block, every halved picture."""
        last = len(self.widths) - 1
        return [self.widths[0]] + [w for i, w in enumerate(self.widths) for _ in range(self.blocks + (i < last))]

    def up(self) -> list[list[Place]]:
        """The blocks of every size on the way up, the smallest size first: each takes what was remembered last."""
        skips, x, places = self.remembered(), self.widths[-1], list[list[Place]]()
        for i in reversed(range(len(self.widths))):
            places.append([])
            for _ in range(self.blocks + 1):
                places[-1].append(Place(i, x + skips.pop(), self.widths[i], i in self.attention))
                x = self.widths[i]
        return places

    def middle(self) -> list[Place]:
        """The two blocks at the smallest size, with attention between them."""
        last, w = len(self.widths) - 1, self.widths[-1]
        return [Place(last, w, w, self.middle_attention), Place(last, w, w, False)]

    def places(self) -> list[Place]:
        """All blocks; those that halve or double stand at the size that they make."""
        between = [] if self.resample == "conv" else self.resampled()
        return [p for level in (*self.down(), self.middle(), *self.up(), between) for p in level]

    def resampled(self) -> list[Place]:
        """Where pictures are halved or doubled, as places of the size that is made."""
        pairs = list(zip(range(len(self.widths) - 1), self.widths, self.widths[1:], strict=False))
        return [Place(i + 1, w, w, False) for i, w, _ in pairs] + [Place(i, w, w, False) for i, _, w in pairs]

    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample (T.19)."""
        w, c = self.widths[0], self.condition_width
        total = 9 * self.pixels(0) * w * (self.in_channels + self.out_channels) + w * c + c * c
        for p in self.places():
            s2, O = self.pixels(p.level), p.out
            total += s2 * (9 * (p.channels + O) * O + p.channels * O * p.changes) + c * O * (1 + self.scale_shift)
            total += p.attention * (4 * s2 * O * O + 2 * s2 * s2 * O)
        if self.resample == "conv":
            total += sum(9 * self.pixels(p.level) * p.out**2 for p in self.resampled())
        return total

    def parameters(self) -> int:
        """Numbers in the checkpoint (T.20)."""
        w, c = self.widths[0], self.condition_width
        total = (9 * self.in_channels + 1) * w + 2 * w + (9 * w + 1) * self.out_channels
        total += (w + 1) * c + (c + 1) * c + self.condition.rows * c
        for p in self.places():
            C, O = p.channels, p.out
            total += 9 * (C + O) * O + 2 * C + 4 * O + (C + 1) * O * p.changes + (c + 1) * O * (1 + self.scale_shift)
            total += p.attention * (4 * O * O + 6 * O)
        if self.resample == "conv":
            total += sum((9 * p.out + 1) * p.out for p in self.resampled())
        return total

    def step_memory(self, home: str, precision: str) -> SampleMemory:
        """The memory of a training update per sample on "cpu" or "cuda"; counted, and compared with measurements by a test."""
        at, places = HOMES[home], self.places()
        blocks = [4 * self._kept(p, at) for p in places]
        first = 4 * self.pixels(0) * self.widths[0]
        inputs = [4 * p.channels * self.pixels(p.level) for p in places]
        more = max(kept - x for kept, x in zip(blocks, inputs, strict=True))  # of a block that is computed again
        return SampleMemory(sum(blocks) + 4 * first, more, sum(inputs) + 4 * first, 4 * at.working(self), 4)

    def _kept(self, place: Place, at: Home) -> int:
        """Numbers that the adjoints of a block and its attention keep."""
        s2, C, O = self.pixels(place.level), place.channels, place.out
        kept = s2 * (at.kept * (C + O) + at.scaled * O * self.scale_shift)
        return kept + place.attention * s2 * (7 * O + at.scores * self.heads(O) * s2)


UNET: Named[UNetConfig] = Named(
    {
        "unet-cifar": UNetConfig(32, 3, (128, 256, 256, 256), groups=32, num_classes=0),  # Ho, Jain, Abbeel 2020, appendix B
        "unet-fashion": UNetConfig(),  # 4 × 8 × 8 latents of 32 × 32 pictures; about as many multiply-accumulates as the DiT's
    }
)
