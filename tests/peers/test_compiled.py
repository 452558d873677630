"""Functions that JAX and torch.compile made are targets like any others: right ones pass, wrong ones are named."""

import importlib.util

import numpy as np
import pytest

import minidit as md

HAS_JAX = importlib.util.find_spec("jax") is not None
needs_jax = pytest.mark.skipif(not HAS_JAX, reason="needs jax")


def functions():
    """Right functions as users of JAX write them: jnp, jit, vmap and grad."""
    import jax
    import jax.numpy as jnp

    def col(a):
        return a[:, None, None, None]

    @jax.jit
    def q_sample(x_0, eps, t, alpha_bar):
        a = jnp.take(alpha_bar, t)
        return col(jnp.sqrt(a)) * x_0 + col(jnp.sqrt(1 - a)) * eps

    @jax.jit
    def ddim_step(x_t, eps, t, s, alpha_bar, eta, z):
        a, b = alpha_bar[t], jnp.where(s >= 0, alpha_bar[s], 1.0)
        sigma = eta * jnp.sqrt((1 - b) / (1 - a) * (1 - a / b))
        x_0 = (x_t - jnp.sqrt(1 - a) * eps) / jnp.sqrt(a)
        return jnp.sqrt(b) * x_0 + jnp.sqrt(jnp.maximum(1 - b - sigma**2, 0.0)) * eps + sigma * z

    def one_row(x):
        return (x - x.mean()) / jnp.sqrt(x.var() + 1e-6)

    def layer_norm(x):
        return jax.vmap(one_row)(x.reshape(-1, x.shape[-1])).reshape(x.shape)

    def attention(q, k, v):
        def head(q, k, v):
            return jax.nn.softmax(q @ k.T * q.shape[-1] ** -0.5, axis=-1) @ v

        return jax.vmap(jax.vmap(head))(q, k, v)

    def flow_euler(net, x, N, a):
        t = jnp.linspace(1.0, 0.0, N + 1)
        t = a * t / (1 + (a - 1) * t)
        for k in range(N):
            x = x + (t[k + 1] - t[k]) * jnp.asarray(net(x, 1000 * t[k]))
        return x

    @jax.jit
    def adamw_update(theta, m, v, g, n, lr, beta1, beta2, eps, weight_decay):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        step = m / (1 - beta1**n) / (jnp.sqrt(v / (1 - beta2**n)) + eps)
        return theta - lr * (step + weight_decay * theta), m, v

    def clip_gradients(gradients, limit):
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree_util.tree_leaves(gradients)))
        return jax.tree_util.tree_map(lambda g: g * jnp.minimum(1.0, limit / norm), gradients)

    return {
        "q_sample": q_sample, "ddim_step": ddim_step, "layer_norm": layer_norm, "attention": attention,
        "gelu": jax.jit(jax.nn.gelu), "silu": jax.nn.silu, "softmax": jax.nn.softmax,
        "linear": jax.jit(lambda x, weight, bias: jnp.einsum("...n,mn->...m", x, weight) + bias),
        "flow_euler": flow_euler, "adamw_update": adamw_update, "clip_gradients": clip_gradients,
        "group_norm": lambda x, w, b, groups, eps: _groups(jnp, x, w, b, groups, eps),
        "simple_loss": lambda out, x_0, eps, t, a, objective: jnp.mean((
            {"eps": eps, "x_0": x_0, "v": col(jnp.sqrt(a[t])) * eps - col(jnp.sqrt(1 - a[t])) * x_0}[objective] - out) ** 2),
    }  # fmt: skip


def _groups(jnp, x, w, b, groups, eps):
    B, C, H, W = x.shape
    g = x.reshape(B, groups, C // groups, H, W)
    n = (g - g.mean((2, 3, 4), keepdims=True)) / jnp.sqrt(g.var((2, 3, 4), keepdims=True) + eps)
    return n.reshape(x.shape) * w[:, None, None] + b[:, None, None]


@pytest.fixture
def double():
    """float64 in JAX, which is float32 otherwise."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@needs_jax
def test_right_functions_of_jax_pass_in_float64(double):
    report = md.verify.check(functions())
    assert [md.verify.report.line(f) for f in report.findings if f.verdict != "equal"] == []


@needs_jax
def test_and_in_float32_which_is_what_jax_computes_in():
    report = md.verify.check(functions())
    assert [md.verify.report.line(f) for f in report.findings if f.verdict != "equal"] == []


@needs_jax
def test_mistakes_in_them_are_named_and_explained(double):
    import jax
    import jax.numpy as jnp

    right = functions()
    wrong = {
        "gelu": jax.jit(lambda x: jax.nn.gelu(x, approximate=False)),
        "q_sample": jax.jit(lambda x_0, eps, t, alpha_bar: right["q_sample"](x_0, eps, t[:1] + 0 * t, alpha_bar)),
        "softmax": lambda x: jax.nn.softmax(x, axis=0), "silu": lambda x: jnp.maximum(x, 0),
    }  # fmt: skip
    report = md.verify.check(wrong)
    says = {f.topic.name: [d.id for names in f.candidates for d in names] or f.sentences for f in report.findings}
    assert says["gelu"] == ["M59"] and says["q_sample"] == ["equals D.1 with the first t for all"]
    assert says["silu"] == ["equals A.4 with ReLU for every SiLU"]
    assert says["softmax"] == ["equals A.13 with axis 0 of x in the place of its last"]


@needs_jax
def test_arrays_of_jax_come_in_where_the_target_asks_a_network():
    """A denoiser of the kit gets arrays of JAX and answers in NumPy, which JAX takes."""
    import jax.numpy as jnp

    net = md.verify.question("flow_euler", "4-1.0")[0]
    answer = net(jnp.ones((2, 1, 3)), jnp.asarray(500.0))
    assert isinstance(answer, np.ndarray) and answer.shape == (2, 1, 3)


def compiled(backend):
    torch = pytest.importorskip("torch")
    make = lambda f: torch.compile(f, backend=backend, dynamic=True)

    def q_sample(x_0, eps, t, alpha_bar):
        a = alpha_bar[t].view(-1, 1, 1, 1)
        return a.sqrt() * x_0 + (1 - a).sqrt() * eps

    def layer_norm(x):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)

    return {"q_sample": make(q_sample), "layer_norm": make(layer_norm), "silu": make(torch.nn.functional.silu)}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_functions_that_torch_compiled_pass_and_their_mistakes_are_named(backend):
    right = compiled(backend)
    report = md.verify.check(md.verify.torch.functions(right))
    assert [md.verify.report.line(f) for f in report.findings if f.verdict != "equal"] == []
    torch = pytest.importorskip("torch")
    gelu = torch.compile(lambda x: torch.nn.functional.gelu(x), backend=backend)
    assert md.verify.check(md.verify.torch.functions({"gelu": gelu})).mistakes == ["M59"]
