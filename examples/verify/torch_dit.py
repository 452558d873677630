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
        self.begin()

    def begin(self):
        """Xavier for what carries the stream, N(0, 0.02²) for time and class, and zero for what makes gates and the output."""
        for name, p in self.named_parameters():
            if name.endswith("bias") or "control" in name or name.startswith("last"):
                nn.init.zeros_(p)
            elif name.startswith(("time", "label")):
                nn.init.normal_(p, std=0.02)
            else:
                nn.init.xavier_uniform_(p.data.flatten(1))  # the patch embedding counts as a linear layer

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


# ------------------------------------------------------------------------------------------------ diffusers' names

STEMS = {  # official -> diffusers; {} is a block, and an embedder of diffusers' is in every block
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "transformer_blocks.{}.norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "transformer_blocks.{}.norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "transformer_blocks.{}.norm1.emb.class_embedder.embedding_table",
    "blocks.{}.adaLN_modulation.1": "transformer_blocks.{}.norm1.linear",
    "blocks.{}.attn.qkv": "transformer_blocks.{}.attn1.to_%s", "blocks.{}.attn.proj": "transformer_blocks.{}.attn1.to_out.0",
    "blocks.{}.mlp.fc1": "transformer_blocks.{}.ff.net.0.proj", "blocks.{}.mlp.fc2": "transformer_blocks.{}.ff.net.2",
    "final_layer.adaLN_modulation.1": "proj_out_1", "final_layer.linear": "proj_out_2",
}  # fmt: skip


def cousins(depth):
    """(an official name, the names of its pieces, for each of its copies) of a network so deep."""
    for stem, theirs in STEMS.items():
        for i in range(depth if "{}" in stem else 1):
            for end in ("weight", "bias") if "table" not in stem else ("weight",):
                blocks = range(depth) if "{}" in theirs and "{}" not in stem else [i]
                copies = [f"{theirs.format(k)}.{end}" for k in blocks]
                yield f"{stem.format(i)}.{end}", [[c % x for x in "qkv"] if "%s" in c else [c] for c in copies]


def dit_to_diffusers(weights):
    state = {}
    for ours, copies in cousins(sum(name.endswith("fc1.bias") for name in weights)):
        for names in copies:
            state |= dict(zip(names, weights[ours].chunk(len(names)), strict=True))
    return state


def dit_from_diffusers(state):
    weights = {}
    for ours, copies in cousins(sum(name.endswith("net.2.bias") for name in state)):
        first, *others = (torch.cat([state[name] for name in names]) for names in copies)
        if not all(torch.equal(first, other) for other in others):
            raise ValueError(f"the blocks' copies of {ours} have parted in training: no single embedder says the same")
        weights[ours] = first
    return weights


def mine(wrong=False, dtype="float64"):
    """topic -> function: the class, on square grids too, and the two maps of names."""

    def build(input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma):
        return Net(input_size, patch_size, in_channels, hidden_size, depth, num_heads, num_classes, learn_sigma, wrong)

    network = md.verify.torch.network(build, names=name, dtype=dtype)
    maps = {"dit_from_diffusers": dit_from_diffusers, "dit_to_diffusers": dit_to_diffusers}
    return network | {"dit_square": network["dit"]} | md.verify.torch.functions(maps, dtype=getattr(torch, dtype))


def main(wrong=False, topics=None):
    report = md.verify.check(mine(wrong), topics=topics)
    print(report)
    return report


if __name__ == "__main__":
    main("--wrong" in sys.argv)
