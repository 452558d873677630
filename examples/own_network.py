"""A network of one's own, trained and sampled like a DiT: three convolutions that know the time and no class. Half a minute.

The picture, own_network.png: real digits above, samples below. Three convolutions draw strokes that are nearly digits.
"""

import minidit as md
from minidit import ops
from minidit.models.condition import Nothing
from minidit.models.embedders import TimestepEmbedder
from minidit.nn import Conv2d, Module


class ThreeConvolutions(Module):
    """What a backbone needs is stated in minidit/models/backbone.py: four attributes, the layers, build, forward and null."""

    condition = Nothing()  # takes no labels; Classes(10, null=10, dropout=0.1) would take ten and learn to do without
    second_half = False  # answers with as many channels as it is shown: nothing about a variance
    config = None  # cannot say what it needs in memory

    def __init__(self, shape, width, rng):
        self.shape = shape  # of one sample
        self.time = TimestepEmbedder(width)
        self.first, self.middle = Conv2d(shape[0], width, 3), Conv2d(width, width, 3)
        self.last = Conv2d(width, shape[0], 3)
        self.build(rng)  # lays all weights into one buffer, and draws them

    def forward(self, x, t, y=None):
        c = self.time(t)  # (B, width)
        h = ops.silu(self.first(x) + c.reshape(*c.shape, 1, 1))
        return self.last(h + ops.silu(self.middle(h)))

    def null(self, y):
        return self.condition.left_out(y)


def main(steps=400, sampling_steps=40, width=32, n=10):
    digits = md.data.digits()
    model = ThreeConvolutions((1, 8, 8), width, md.Philox(seed=0))
    process = md.Diffusion.on_ladder(md.Schedule.cosine(), md.V)
    for record in md.train(model, digits, process, steps=steps, lr=3e-3, warmup=30, clip=1.0):
        if record["step"] % 100 == 0:
            print(f"update {record['step']}, loss {record['loss']:.3f}")
    x = md.sample(model, process, n=n, steps=sampling_steps, clip=True)
    rows = [md.pictures.grid(a, n, scale=5) for a in (digits.x_0()[:n], x)]
    print(md.pictures.save_png("own_network.png", md.pictures.stack(rows, ["real", "samples"])))


if __name__ == "__main__":
    main()
