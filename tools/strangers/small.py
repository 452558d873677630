"""smalldiffusion: a schedule of σ = √(1-ᾱ)/√ᾱ, and a sampler on x/√ᾱ, as answers to the kit.

Its noise levels are read from a Schedule made of the topic's ladder, the rescaling by √ᾱ happens here. Its sampler with μ = 0 is
DDIM without noise, with μ = ½ DDPM with the small variance.
"""

import torch

from minidit.verify.borders.torch import functions
from minidit.verify.topics import parameters

from . import drawing, stranger

package = stranger("smalldiffusion")


def sigmas(alpha_bar):
    return (1 / alpha_bar - 1).sqrt()


def ladder(schedule):
    return 1 / (1 + schedule.sigmas.double() ** 2)


class Says(torch.nn.Module, package.model.ModelMixin):
    """A network that says what it was made with."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.input_dims = answer, tuple(answer.shape[1:])

    def forward(self, x, sigma, cond=None):
        return self.answer


def stepped(x_t, output, t, s, alpha_bar, kind=Says, z=None, mu=0.0):
    """One step of theirs between two rungs, in our coordinates."""
    a_t, a_s = alpha_bar[t], alpha_bar[s] if s >= 0 else torch.tensor(1.0).double()
    levels = sigmas(torch.stack([a_t, a_s]))
    on_cpu = type("Here", (), {"device": "cpu"})()
    with drawing(torch.zeros_like(x_t) if z is None else z):
        made = next(package.samples(kind(output), levels, mu=mu, xt=x_t / a_t.sqrt(), batchsize=len(x_t), accelerator=on_cpu))
    return made * a_s.sqrt()


def alpha_bar(betas):
    return 1 / (1 + package.diffusion.sigmas_from_betas(betas) ** 2)


def cosine_alpha_bar(T):
    return ladder(package.ScheduleCosine(T))


def linear_alpha_bar(T):
    return ladder(package.ScheduleDDPM(T))


def linear_betas(T):
    table = linear_alpha_bar(T)
    return 1 - table / torch.nn.functional.pad(table[:-1], (1, 0), value=1.0)


def trailing_timesteps(T, N):
    return package.Schedule(torch.arange(T)).sample_sigmas(N)[:-1]


def ddim_scheduler(alpha_bar):
    """Its list of levels, and a step from each of them to the one behind it."""
    alpha_bar = torch.as_tensor(alpha_bar)

    class Whole:
        def timesteps(self, N):
            self.visited = package.Schedule(torch.arange(len(alpha_bar))).sample_sigmas(N)
            return self.visited[:-1].numpy()

        def step(self, x_t, eps, t, z):
            s = int(self.visited[self.visited[:-1].tolist().index(t) + 1])
            return stepped(torch.as_tensor(x_t), torch.as_tensor(eps), t, s, alpha_bar).numpy()

    return Whole()


def ddpm_step(x_t, eps, t, s, alpha_bar, z):
    return stepped(x_t, eps, t, s, alpha_bar, z=z, mu=0.5)


def ddim_step_v(x_t, v, t, s, alpha_bar):
    return stepped(x_t, v, t, s, alpha_bar, kind=package.PredV(Says))


def guide_omega(eps_u, eps_c, omega):
    class Both(Says):
        cond_embed = type("Labels", (), {"null_cond": 9})()

        def forward(self, x, sigma, cond=None):
            return torch.cat([eps_c, eps_u]) if len(x) > len(eps_c) else eps_c

    return Both(eps_c).predict_eps_cfg(eps_c, torch.tensor(1.0), torch.zeros(len(eps_c), dtype=torch.long), omega)


def square_positions(D, side):
    """Its table of places, which is for squares only."""
    return package.model_dit.get_pos_embed(side, 1, D)[0].double()


def block(weights, x, c, heads):
    """A block by the official names: its modulations stand in three layers, scale before shift."""
    D = x.shape[-1]
    theirs = package.model_dit.DiTBlock(D // heads, heads, mlp_ratio=len(weights["mlp.fc1.bias"]) / D).double()
    sizes = {"weight": weights["adaLN_modulation.1.weight"].chunk(6), "bias": weights["adaLN_modulation.1.bias"].chunk(6)}
    state = {}
    for kind, (shift_1, scale_1, gate_1, shift_2, scale_2, gate_2) in sizes.items():
        state |= {f"norm1.modulation.proj.1.{kind}": torch.cat([scale_1, shift_1])}
        state |= {f"norm2.modulation.proj.1.{kind}": torch.cat([scale_2, shift_2])}
        state |= {f"scale_modulation.proj.1.{kind}": torch.cat([gate_1, gate_2])}
        state |= {f"attn.{n}.{kind}": weights[f"attn.{n}.{kind}"] for n in ("qkv", "proj")}
        state |= {f"mlp.{i}.{kind}": weights[f"mlp.fc{1 + i // 2}.{kind}"] for i in (0, 2)}
    theirs.load_state_dict(state)
    return theirs(x, c)


def initial_weights(D, L, heads, patch_size, C, K, learn_sigma, seed):
    """Its modulations by the official names; the rest takes our start.

    The official layer of a block holds three of its matrices: Xavier's bound √(6/(m+n)) is put on the scale of that shape.
    """
    from minidit.verify.core.reference import Reference

    torch.manual_seed(seed)
    label = package.model.CondEmbedderLabel(D, K)
    net = package.model_dit.DiT(4 * patch_size, C, patch_size, L, D // heads, heads, cond_embed=label)
    ours = parameters.initial_weights(Reference(), D, L, heads, patch_size, C, K, learn_sigma, seed)
    out, scale_of_shape = {name: torch.as_tensor(a) for name, a in ours.items()}, ((2 * D + D) / (6 * D + D)) ** 0.5
    for kind in ("weight", "bias"):
        for i, b in enumerate(net.blocks):
            layers = (b.norm1.modulation, b.norm2.modulation, b.scale_modulation)
            (scale_1, shift_1), (scale_2, shift_2), (gate_1, gate_2) = (getattr(m.proj[1], kind).chunk(2) for m in layers)
            official = torch.cat([shift_1, scale_1, gate_1, shift_2, scale_2, gate_2])
            out[f"blocks.{i}.adaLN_modulation.1.{kind}"] = official * scale_of_shape
        scale, shift = getattr(net.final_norm.modulation.proj[1], kind).chunk(2)
        out[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
    return {name: a.detach() for name, a in out.items()}


def target():
    """topic -> answer."""
    from minidit.verify import TOPICS

    whole = {"ddim_scheduler": ddim_scheduler}  # an object, which no adapter of functions can hand over
    return functions({name: f for name, f in globals().items() if name in TOPICS}) | whole
