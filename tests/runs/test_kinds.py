"""Words become objects: each kind builds its network, its process and its tokenizer."""

from dataclasses import fields, replace

import numpy as np
import pytest
from small import DIT, PROCESSES, run_config
from support import agree, spec

from minidit.choices import words_of
from minidit.diffusion import loss, times
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import U, V
from minidit.diffusion.schedule import Schedule
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKLConfig
from minidit.models.dit import DiT
from minidit.processes.diffusion import Diffusion, Hybrid
from minidit.processes.tokenizer import Latent, Pixels
from minidit.random import Philox
from minidit.runs.kinds import KINDS, PixelsConfig, assembled, kind_of, network_of, shape_of
from minidit.runs.phases import Run
from minidit.runs.presets import PRESETS
from minidit.runs.process_kinds import Betas, DDPMConfig, EDMConfig, RectifiedFlowConfig
from minidit.training.loop import LoopConfig
from minidit.training.source import source_of

KL = AutoencoderKLConfig(channels=1, widths=(8, 16), blocks=1, groups=4)


class Uniforms:
    """Draws whose uniforms are known."""

    def __init__(self, u):
        self.u = u

    def uniform(self, *, dtype):
        assert dtype is np.float64
        return self.u


SOURCE = source_of(np.zeros((3, 1, 4, 4), np.float32))


def test_every_kind_is_the_word_of_its_own_dataclass():
    for section, words in KINDS.items():
        assert [kind_of(section, cls()) for cls in words.values()] == list(words)


CLASSES = {LoopConfig, *(cls for kinds in KINDS.values() for cls in kinds.values())}
WORDS = [(cls, f.name, f.default) for cls in CLASSES for f in fields(cls) if words_of(f)]


@pytest.mark.parametrize("cls, name, word", sorted(WORDS, key=lambda case: (case[0].__name__, case[1])))
def test_a_field_of_words_refuses_every_other_one_and_says_which_was_probably_meant(cls, name, word):
    with pytest.raises(ValueError, match=rf"^{name} '{word}q' is not one of .*, did you mean '\w+'"):
        cls(**{name: f"{word}q"})


@pytest.mark.parametrize("config, network", [(DIT, DiT), (AutoencoderConfig(), Autoencoder)])
def test_a_configuration_becomes_its_network_with_these_weights(config, network):
    made = network_of(config, Philox(3, 2))
    assert type(made) is network and np.array_equal(made.flat, network(config, Philox(3, 2)).flat)
    assert network_of(config).config == config


@pytest.mark.parametrize("config, shape", [(PixelsConfig(), (3, 16, 8)), (AutoencoderConfig(), (4, 4, 2)), (KL, (4, 8, 4))])
def test_the_shape_of_x_0_is_known_before_there_is_a_network(config, shape):
    assert shape_of(config, 3, 16, 8) == shape
    if not isinstance(config, PixelsConfig):
        assert Latent(network_of(replace(config, channels=3))).shape(3, 16, 8) == shape


def test_a_process_is_its_ladder_its_answer_and_its_weight():
    process, sch, t = DDPMConfig("v", "cosine", 30, "min_snr").diffusion(), Schedule.cosine(30), np.arange(1, 31)
    assert np.array_equal(process.path.alpha_bar, sch.alpha_bar) and process.answer is V
    assert np.allclose(process.weights(t), loss.min_snr(V, sch.level(t)), rtol=1e-12)
    assert DDPMConfig().diffusion().weights is None


@spec("P.17", "P.13", "P.16")
def test_the_processes_of_continuous_paths_are_what_their_words_say():
    flow = RectifiedFlowConfig(times="logit_normal", times_mean=0.3, times_std=0.7, shift=3.0).diffusion()
    u = np.array([0.1, 0.5, 0.9])
    assert flow.path == Straight(shift=3.0) and flow.answer is U and flow.path.grid(4) == times.linear(4, 3.0)
    agree(flow.times(Uniforms(u)), times.shift(times.logit_normal(0.3, 0.7)(u), 3.0), bound=1e-15, of=("P.17", "P.13"))
    for word, law in (("uniform", times.uniform), ("mode", times.mode(1.29)), ("cosmap", times.cosmap)):
        agree(RectifiedFlowConfig(times=word).diffusion().times(Uniforms(u)), law(u), bound=0)
    for spread, factor in ((0.5, 1.0), (1.0, 2.0)):  # noise in units of the data: the paper's are 0.5
        edm = EDMConfig().fitted(lambda spread=spread: spread).diffusion()
        assert edm.path == Exploding(spread, 0.002 * factor, 80.0 * factor) and edm.weight is None
        agree(edm.times(Uniforms(u)), factor * times.lognormal()(u), bound=1e-12, of="P.16")
    assert EDMConfig(sigma_data=0.3).fitted(lambda: 1.0).sigma_data == 0.3


def test_only_a_ladder_has_most_steps_and_a_bound_to_train(tmp_path):
    assert {name: process.most_steps for name, process in PROCESSES.items()} == {"ddpm": 20, "rectified_flow": None, "edm": None}
    for name in ("rectified_flow", "edm"):
        config = run_config(process=name)
        job = Run(tmp_path, replace(config, model=replace(config.model, learn_sigma=True)))
        with pytest.raises(ValueError, match="a model with learn_sigma is trained on a ladder of rungs only"):
            job.fit_to(job.data()[0])


@pytest.mark.parametrize("pixels", [True, False])
def test_the_spread_of_the_data_is_measured_for_edm_and_kept(tmp_path, pixels):
    job = Run(tmp_path, run_config(pixels=pixels, process="edm"))
    train, _ = job.data()
    job.fit_to(train)
    wanted = float((train.x_0(dtype=np.float64) ** 2).mean() ** 0.5) if pixels else 1.0
    assert abs(job.config.process.sigma_data - wanted) < 0.02


def test_the_bound_is_trained_where_the_network_answers_twice_the_channels():
    config = DDPMConfig(T=30, vb_weight=0.25)
    assert isinstance(config.process(DiT(DIT), SOURCE), Diffusion)
    hybrid = config.process(DiT(replace(DIT, learn_sigma=True)), SOURCE)
    assert isinstance(hybrid, Hybrid) and hybrid.vb_weight == 0.25


def test_a_ladder_of_numbers_is_that_of_the_same_betas():
    sch = Schedule.linear(30)
    betas = Betas(betas=tuple(sch.beta[1:].tolist()), T=30)
    assert np.allclose(betas.path().alpha_bar, sch.alpha_bar, rtol=1e-12)


def test_a_run_is_assembled_around_its_tokenizer():
    config, network = run_config(pixels=False), Autoencoder(AutoencoderConfig())
    tokenizer, process = assembled(config.process, network)
    assert tokenizer == Latent(network) and process.path.T == 20
    assert assembled(PRESETS["quick"].process, None)[0] == Pixels("cpu")


@pytest.mark.parametrize("bad, message", [
    ({"prediction": "noise"}, "prediction 'noise' is not one of eps, x_0, v"),
    ({"schedule": "cosin"}, "schedule 'cosin' is not one of linear, cosine, scaled_linear, did you mean 'cosine'"),
    ({"loss_weight": "snr"}, "loss_weight 'snr' is not one of uniform, min_snr"),
    ({"T": 20}, "T = 20 is too short"),
    ({"T": 0, "schedule": "cosine"}, "T = 0 must be at least 1"),
])  # fmt: skip
def test_what_means_nothing_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        DDPMConfig(**bad)
