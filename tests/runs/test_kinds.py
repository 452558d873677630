"""Words become objects: each kind builds its network, its process and its tokenizer."""

from dataclasses import replace

import numpy as np
import pytest
from small import DIT, run_config

from minidit.diffusion import loss
from minidit.diffusion.prediction import V
from minidit.diffusion.schedule import Schedule
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKLConfig
from minidit.models.dit import DiT
from minidit.processes.diffusion import Diffusion, Hybrid
from minidit.processes.tokenizer import Latent, Pixels
from minidit.random import Philox
from minidit.runs.kinds import KINDS, PixelsConfig, assembled, kind_of, network_of, shape_of
from minidit.runs.presets import PRESETS
from minidit.runs.process_kinds import Betas, DDPMConfig
from minidit.training.source import source_of

KL = AutoencoderKLConfig(channels=1, widths=(8, 16), blocks=1, groups=4)
SOURCE = source_of(np.zeros((3, 1, 4, 4), np.float32))


def test_every_kind_is_the_word_of_its_own_dataclass():
    for section, words in KINDS.items():
        assert [kind_of(section, cls()) for cls in words.values()] == list(words)


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
