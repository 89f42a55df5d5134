"""The encoder whose kernels a CPPN paints."""

import json

import pytest
import torch

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.encoders import build_encoder
from cppncripto_strategy.models.hyperneat.encoder import (
    CPPNEncoder,
    PaintedConv,
    average_rows,
    pooled,
)
from cppncripto_strategy.models.hyperneat.neat_python import random_genome
from cppncripto_strategy.models.hyperneat.substrate import Layer, Substrate
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, FeatureTable
from cppncripto_strategy.models.pretraining import build_objective, pretrain
from cppncripto_strategy.models.settings import PretrainSettings

N_FEATURES, BATCH, STRIDE, ROWS = 9, 3, 12, 40


def encoder_of(seed=0, width=116, **options):
    torch.manual_seed(seed)
    return build_encoder("cppn", N_FEATURES, options, width)


def candles(seed=1, rows=ROWS):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, rows * STRIDE, N_FEATURES, generator=generator)


def test_shapes_keep_the_encoder_contract():
    """MacroNet sizes its projection by width and stride."""
    encoder = encoder_of(width=10)
    feature_map = encoder.feature_map(candles())
    assert feature_map.shape == (BATCH, ROWS, encoder.width) == (BATCH, ROWS, 10)
    torch.testing.assert_close(encoder(candles()), feature_map.mean(dim=1))


def test_row_depends_on_no_candle_after_it():
    """A kernel padded on both sides, or a tap order reversed, sees the future."""
    encoder, x = encoder_of(seed=2), candles()
    for row in (0, 7, ROWS - 2):
        changed = x.clone()
        changed[:, (row + 1) * STRIDE :] += 100.0
        before, after = encoder.feature_map(x), encoder.feature_map(changed)
        assert torch.equal(before[:, : row + 1], after[:, : row + 1])
        assert not torch.equal(before[:, row + 1], after[:, row + 1])


def test_row_depends_on_the_receptive_field_and_on_nothing_older():
    """The receptive field that the substrate reports is the one windows are planned by."""
    encoder, x = encoder_of(seed=2), candles()
    row, field = ROWS - 1, encoder.substrate.receptive_field
    changed = x.clone()
    changed[:, : (row + 1 - field) * STRIDE] += 100.0
    assert torch.equal(encoder.feature_map(x)[:, row], encoder.feature_map(changed)[:, row])


def test_encoder_rebuilt_from_its_options_is_the_same_network():
    """A bundle holds options and weights and no code: the mask must come back with them."""
    encoder = encoder_of(seed=5)
    with torch.no_grad():
        for layer in encoder.painted:
            layer.weight.mul_(1.5)
    rebuilt = build_encoder("cppn", N_FEATURES, json.loads(json.dumps(encoder.options.to_json())))
    rebuilt.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder(candles()), rebuilt(candles()))
    assert rebuilt.options == encoder.options


def test_fine_tuning_moves_expressed_weights_and_no_other():
    """A mask applied once, and not at every step, lets pruned connections grow back."""
    encoder = next(
        encoder
        for encoder in (encoder_of(seed=seed, width=8, channels=8) for seed in range(200))
        if encoder.connections < encoder.substrate.weights / 2
    )
    before = [layer.weight.detach().clone() for layer in encoder.painted]
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        encoder(candles()).square().sum().backward()
        optimizer.step()
    for layer, old in zip(encoder.painted, before, strict=True):
        assert not layer.weight[~layer.mask].any()
        assert not torch.equal(layer.weight[layer.mask], old[layer.mask])
        assert not layer.mask.requires_grad


def test_without_a_genome_the_seed_of_torch_draws_one():
    """Several initialisations must differ, and each must be repeatable."""
    assert encoder_of(seed=3).genome == encoder_of(seed=3).genome
    assert encoder_of(seed=3).genome != encoder_of(seed=4).genome
    drawn = [encoder_of(seed=seed) for seed in range(20)]
    assert all(layer.mask.any() for encoder in drawn for layer in encoder.painted)


def test_genome_is_read_from_the_file_of_a_champion(tmp_path):
    """A recipe names the file; the options keep the genome, so the file may vanish."""
    genome = random_genome(7, 60)
    evolved_on = Substrate.temporal(N_FEATURES, width=20, channels=5, taps=3, dilations=(1, 3))
    path = tmp_path / "champion.json"
    path.write_text(
        json.dumps({"genome": genome.to_json(), "substrate": evolved_on.to_json(), "probe": 0.1})
    )
    encoder = encoder_of(genome=str(path), width=11)
    path.unlink()
    assert encoder.substrate == evolved_on.with_width(11)
    rebuilt = build_encoder("cppn", N_FEATURES, encoder.options.to_json(), 11)
    assert isinstance(rebuilt, CPPNEncoder)
    assert (rebuilt.genome, rebuilt.substrate) == (genome, encoder.substrate)


def test_substrate_for_other_features_is_refused():
    """A genome evolved with taker imbalance must not be fed candles without it."""
    substrate = Substrate((Layer(N_FEATURES + 1, 4, 3, 1),)).to_json()
    with pytest.raises(RecipeError, match="reads 10 features and the candles have 9"):
        encoder_of(substrate=substrate)


def test_rows_average_their_own_candles():
    """A row that starts one candle early mixes two hours."""
    x = torch.arange(24.0).reshape(1, 24, 1)
    assert average_rows(x, STRIDE).flatten().tolist() == [5.5, 17.5]


def test_bank_of_genomes_shares_out_the_vector():
    """Two genomes side by side must be each one's own network, and rebuilt from the options."""
    one, two = (encoder_of(seed=seed, width=5) for seed in (3, 4))
    options = {"genome": one.genome.to_json(), "bank": [two.genome.to_json()]}
    both = encoder_of(width=10, **options)
    x = candles()
    torch.testing.assert_close(both(x), torch.cat([one(x), two(x)], dim=1))
    assert both.connections == one.connections + two.connections
    rebuilt = build_encoder("cppn", N_FEATURES, json.loads(json.dumps(both.options.to_json())), 10)
    rebuilt.load_state_dict(both.state_dict())
    assert torch.equal(rebuilt(x), both(x))
    with pytest.raises(RecipeError, match="2 genomes cannot share out a vector of 1 numbers"):
        encoder_of(width=1, **options)


def test_champion_of_several_genomes_is_read_with_its_bank(tmp_path):
    """A bank left in the file would train a fraction of the champion."""
    where = Substrate.temporal(N_FEATURES, width=20, channels=5, taps=3, dilations=(1, 3))
    genomes = [random_genome(seed, 60) for seed in (7, 8, 9)]
    document = {"genome": genomes[0].to_json(), "substrate": where.to_json()}
    path = tmp_path / "champion.json"
    path.write_text(json.dumps(document | {"bank": [g.to_json() for g in genomes[1:]]}))
    assert encoder_of(genome=str(path), width=12).genomes == tuple(genomes)
    path.write_text(json.dumps(document | {"bank": [{"format": "something"}]}))
    with pytest.raises(RecipeError, match="not a genome"):
        encoder_of(genome=str(path))


def test_gate_multiplies_what_its_filter_answers():
    """By hand, for one row: GELU of the filter times the sigmoid of the gate."""
    layer = Layer(1, 2, 1, 1)
    weight = torch.tensor([[[2.0]], [[-1.0]]])
    gate = torch.tensor([[[3.0]], [[0.5]]])
    z = torch.tensor([[[0.7]]])
    found = PaintedConv(layer, weight, weight != 0, gate)(z)
    answer = torch.tensor([1.4, -0.7])
    opened = torch.sigmoid(torch.tensor([2.1, 0.35]))
    torch.testing.assert_close(found[0, :, 0], torch.nn.functional.gelu(answer) * opened)


def test_gated_encoder_is_causal_and_comes_back_from_its_options():
    """Gate weights left out of the state, or a gate padded on both sides."""
    encoder, x = encoder_of(seed=5, gated=True, coordinates=["day", "period"]), candles()
    changed = x.clone()
    changed[:, 8 * STRIDE :] += 100.0
    before, after = encoder.feature_map(x), encoder.feature_map(changed)
    assert torch.equal(before[:, :8], after[:, :8])
    rebuilt = build_encoder("cppn", N_FEATURES, json.loads(json.dumps(encoder.options.to_json())))
    rebuilt.load_state_dict(encoder.state_dict())
    assert torch.equal(rebuilt(x), encoder(x))


def test_half_life_lets_the_last_rows_count_in_the_first_half():
    """By hand: weights of 4, 2, 1 sevenths, newest first; the other half is the plain mean."""
    z = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]])
    found = pooled(z, half_life=1.0)
    torch.testing.assert_close(found, torch.tensor([[(1 + 2 * 2 + 4 * 4) / 7, 7 / 3]]))


def test_decay_draws_fine_tuning_back_to_what_was_painted():
    """A pull towards 0 instead of the painted weights, or one on connections left out."""
    encoder = encoder_of(seed=3, width=8, channels=8, decay=0.5)
    assert encoder.penalty() == 0
    with torch.no_grad():
        for layer in encoder.painted:
            layer.weight.add_(0.1)
    expected = 0.5 * 0.01 * encoder.connections
    assert encoder.penalty().item() == pytest.approx(expected, rel=1e-4)
    assert encoder_of(seed=3).penalty() is None


def test_pretraining_heeds_the_penalty():
    """An option that the training loop never asks for."""
    moved = []
    for decay in (0.0, 1e3):
        encoder = encoder_of(seed=3, width=8, channels=8, decay=decay)
        objective = build_objective("autoencoder", encoder, FeatureTable.of(DEFAULT_COLUMNS))
        windows = Windows(torch.randn(12, 576, N_FEATURES, generator=torch.manual_seed(0)))
        how = PretrainSettings(epochs=4, batch_size=4, learning_rate=1e-2)
        pretrain(encoder, objective, windows, windows, how, seed=0)
        distance = [(y.weight - y.painted).square().sum() for y in encoder.painted]
        moved.append(float(torch.stack(distance).sum().detach()))
    assert 0 < moved[1] < 0.2 * moved[0]


class Windows:
    """Macro windows held in memory."""

    def __init__(self, windows):
        self.windows = windows

    def __len__(self):
        return len(self.windows)

    def gather(self, index):
        return self.windows[torch.from_numpy(index)]


def test_what_came_later_leaves_the_names_of_older_bundles_alone():
    """A bundle's name is a hash of its options: a new option at its default must not change it."""
    plain = encoder_of(seed=3).options.to_json()
    assert {"bank", "coordinates", "gated", "half_life", "decay"}.isdisjoint(plain)
    assert set(plain["substrate"]) == {"layers", "stride", "interval_ms", "features"}
