"""A diffusion transformer in torch with names of its own, verified with random weights, layer by layer, gradients too.

    python examples/verify/torch_dit.py            the network as it is
    python examples/verify/torch_dit.py --wrong    with shift and scale exchanged, which the kit names

The kit builds the class in several sizes (it gets those of the official configuration's names that its signature has), fills in
random weights through the map of names, and looks at the outputs of its parts by hooks. A fresh network of this kind answers 0
whatever is wrong inside: only random weights show it.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn

import minidit as md


def angles(t, width):
    f = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    return torch.cat([torch.cos(t[:, None] * f), torch.sin(t[:, None] * f)], 1)


def places(width, rows, columns):
    def line(n):
        a = angles(torch.arange(n), width // 2)
        return torch.cat([a[:, width // 4 :], a[:, : width // 4]], 1)  # sine first

    across = line(columns).repeat(rows, 1)
    return torch.cat([across, line(rows).repeat_interleave(columns, 0)], 1)


class Block(nn.Module):
    def __init__(self, width, heads, wrong):
        super().__init__()
        self.heads, self.wrong = heads, wrong
        self.to_qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.control = nn.Linear(width, 6 * width)

    def modulated(self, x, shift, scale):
        shift, scale = (scale, shift) if self.wrong else (shift, scale)
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    def attend(self, x):
        B, N, D = x.shape
        q, k, v = self.to_qkv(x).reshape(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.mix(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, D))

    def forward(self, x, c):
        a, b, gate, d, e, gate_2 = self.control(F.silu(c)).chunk(6, 1)
        x = x + gate[:, None] * self.attend(self.modulated(x, a, b))
        return x + gate_2[:, None] * self.down(F.gelu(self.up(self.modulated(x, d, e)), approximate="tanh"))


class Net(nn.Module):
    def __init__(self, input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma, wrong=False):
        super().__init__()
        self.p, out = patch_size, in_channels * (2 if learn_sigma else 1)
        self.cut = nn.Conv2d(in_channels, hidden_size, patch_size, patch_size)
        self.time = nn.Sequential(nn.Linear(256, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))
        self.label = nn.Embedding(num_classes + 1, hidden_size)
        self.layers = nn.ModuleList(Block(hidden_size, num_heads, wrong) for _ in range(depth))
        self.last_control, self.last = nn.Linear(hidden_size, 2 * hidden_size), nn.Linear(hidden_size, patch_size**2 * out)

    def forward(self, x, t, y):
        H, W = (n // self.p for n in x.shape[2:])
        c = self.time(angles(t, 256).to(x)) + self.label(y)
        x = self.cut(x)
        x = x.flatten(2).transpose(1, 2) + places(x.shape[1], H, W).to(x)
        for layer in self.layers:
            x = layer(x, c)
        shift, scale = self.last_control(F.silu(c)).chunk(2, 1)
        x = self.last(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None])
        return x.reshape(len(x), H, W, self.p, self.p, -1).permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, H * self.p, W * self.p)


MINE = {  # a piece of an official name -> this module's
    "x_embedder.proj": "cut", "t_embedder.mlp": "time", "y_embedder.embedding_table": "label", "blocks": "layers",
    "attn.qkv": "to_qkv", "attn.proj": "mix", "mlp.fc1": "up", "mlp.fc2": "down",
    "final_layer.adaLN_modulation.1": "last_control", "final_layer.linear": "last", "adaLN_modulation.1": "control",
}  # fmt: skip


def name(official):
    for theirs, mine in MINE.items():
        official = official.replace(theirs, mine)
    return official


def main(wrong=False, topics=("network", "parameter_shapes")):
    def build(input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma):
        return Net(input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma, wrong)

    report = md.verify.check(md.verify.torch.network(build, names=name), topics=topics)
    print(report)
    return report


if __name__ == "__main__":
    main("--wrong" in sys.argv)
