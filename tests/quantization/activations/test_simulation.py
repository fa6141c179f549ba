"""The network in integers: against exact integers, against float, and against its own plan."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from activation_kit import Chain, Everything, noise, tiny_dephasenet

from quantisp.errors import PlanError, SettingError
from quantisp.quantization import (
    ActivationSettings,
    LayerPlan,
    Plan,
    QuantizedModel,
    capture,
    quantize,
    quantize_activations,
    round_scalar,
)
from quantisp.quantization.activations.rescaling import choose_rescale, rescale_scalar


def _psnr_db(first, second):
    return float(-10 * (first.clamp(0, 1) - second.clamp(0, 1)).square().mean().log10())


@pytest.fixture(scope="module")
def chain():
    torch.manual_seed(1)
    return Chain().eval()


@pytest.mark.reference
@pytest.mark.parametrize("tie_rule", ["half_up", "half_even"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_convolution_equals_exact_integers(chain, tie_rule, granularity):
    plan = Plan(
        default=LayerPlan(weight_bits=6, activation_bits=7, granularity=granularity),
        activations=ActivationSettings(tie_rule=tie_rule),
    )
    calibration, x = noise(2, 1, 6, 6), noise(1, 1, 5, 4, seed=1)
    found = quantize(chain, plan, [calibration])
    simulated = found.activations.double()
    first = found.activations.graph.nodes[1]
    assert first.layer == "first"
    codes = simulated.run(x.double(), (first.name,))[first.name]
    step, quantizer = simulated.step(first.name), found.activations.quantizers[first.name]
    multipliers, shifts = step.rescale.multiplier[0], step.rescale.shift
    assert 0 <= int(multipliers.min()) <= int(multipliers.max()) < 1 << 16
    assert int(shifts.min()) >= 1
    weight = found.codes["first"].tolist()
    for channel in range(4):
        index = channel if granularity == "channel" else 0
        for row in range(5):
            for column in range(4):
                total = int(step.bias.reshape(-1)[channel])
                for i in range(3):
                    for j in range(3):
                        y, z = row + i - 1, column + j - 1
                        if 0 <= y < 5 and 0 <= z < 4:
                            code = round_scalar(Fraction(float(x[0, 0, y, z])) * 1023, tie_rule)
                            total += weight[channel][0][i][j] * code
                expected = rescale_scalar(
                    (total,),
                    (int(multipliers.reshape(-1)[index]),),
                    int(shifts.reshape(-1)[index]),
                    tie_rule,
                )
                expected = min(max(expected, quantizer.qmin), quantizer.qmax)
                assert int(codes[0, channel, row, column]) == expected


@pytest.mark.property
def test_multipliers_are_as_near_as_16_bits_can_be():
    ratios = torch.logspace(-9, 4, 500, dtype=torch.float64)[None]
    found = choose_rescale(ratios)
    assert int(found.multiplier.min()) >= 1 << 15
    assert int(found.multiplier.max()) < 1 << 16
    assert int(found.shift.min()) >= 1
    torch.testing.assert_close(found.ratio(), ratios, rtol=2.0**-16, atol=0)


@pytest.mark.parametrize(
    ("total", "shift", "half_up", "half_even"),
    [(3, 1, 2, 2), (5, 1, 3, 2), (-3, 1, -1, -2), (-5, 1, -2, -2), (7, 2, 2, 2), (6, 2, 2, 2)],
)
def test_ties_go_up_or_to_even(total, shift, half_up, half_even):
    assert rescale_scalar((total,), (1,), shift, "half_up") == half_up
    assert rescale_scalar((total,), (1,), shift, "half_even") == half_even
    exact = Fraction(total, 1 << shift)
    assert half_even == round_scalar(exact, "half_even")
    assert half_up == round_scalar(exact, "half_up")


@pytest.fixture(scope="module")
def dephasenet_graph():
    return capture(tiny_dephasenet(), noise(1, 1, 24, 24))


@pytest.fixture(scope="module")
def in_integers(dephasenet_graph):
    network = tiny_dephasenet()
    calibration = [noise(2, 1, 24, 24, seed=seed) for seed in (1, 2)]

    def made(weight_bits, activation_bits, **settings) -> QuantizedModel:
        default = LayerPlan(
            weight_bits=weight_bits, activation_bits=activation_bits, granularity="channel"
        )
        plan = Plan(default=default, activations=ActivationSettings(**settings))
        weights = quantize(network, plan.without_activations())
        return quantize_activations(weights, network, plan, calibration, graph=dephasenet_graph)

    return made


@pytest.mark.property
@pytest.mark.parametrize("weight_bits", [16, None])
def test_sixteen_bits_are_close_to_float(in_integers, weight_bits):
    x = noise(1, 1, 24, 24, seed=9)
    found = in_integers(weight_bits, 16, input_bits=16, bias_bits=40)
    with torch.no_grad():
        assert _psnr_db(found(x), tiny_dephasenet()(x)) > 70


@pytest.mark.property
@pytest.mark.parametrize("observer", ["mse", "minmax", "percentile"])
def test_more_bits_are_nearer_to_float(in_integers, observer):
    x = noise(1, 1, 24, 24, seed=9)
    with torch.no_grad():
        reference = tiny_dephasenet()(x)
        psnr_db = [
            _psnr_db(in_integers(8, bits, observer=observer)(x), reference)
            for bits in (4, 6, 8, 10)
        ]
    assert psnr_db == sorted(psnr_db)
    assert psnr_db[-1] - psnr_db[0] > 10


def test_every_size_and_batch_of_pictures(in_integers):
    found = in_integers(8, 8)
    x = noise(2, 1, 22, 29)
    whole = found(x)
    assert whole.shape == (2, 3, 22, 29)
    # A picture does not depend on its neighbours in the batch.
    torch.testing.assert_close(found(x[:1]), whole[:1], atol=0, rtol=0)


def test_equal_inputs_give_equal_networks(in_integers):
    x = noise(1, 1, 24, 24)
    assert torch.equal(in_integers(6, 8)(x), in_integers(6, 8)(x))


def test_quantizers_stand_where_values_are_stored(in_integers):
    found = in_integers(8, 9)
    simulated = found.activations
    by_layer = {node.layer: node.name for node in simulated.graph.nodes if node.layer}
    quantizers = simulated.quantizers
    inputs = quantizers[simulated.graph.nodes[0].name]
    assert (inputs.bits, inputs.signed, inputs.scale) == (10, False, 1 / 1023)
    output = quantizers[simulated.graph.output]
    assert (output.bits, output.signed, output.scale) == (9, False, 1 / 511)
    # After a ReLU, and after a sigmoid, nothing is negative.
    relu = quantizers[by_layer["coarse_subnet.blocks.0.conv1"]]
    assert (relu.bits, relu.signed, relu.qmin, relu.qmax) == (9, False, 0, 511)
    sigmoids = [n.name for n in simulated.graph.nodes if n.name.startswith("sigmoid")]
    assert not any(quantizers[name].signed for name in sigmoids)
    conv = quantizers[by_layer["coarse_subnet.blocks.0.conv2"]]
    assert (conv.signed, conv.qmin, conv.qmax) == (True, -256, 255)
    # What moves values about shares its input's.
    for node in simulated.graph.nodes:
        if node.moves:
            assert all(quantizers[node.name] == quantizers[name] for name in node.inputs)


def test_codes_are_whole_and_in_range(in_integers):
    simulated = in_integers(8, 6).activations
    names = [node.name for node in simulated.graph.nodes]
    for name, codes in simulated.run(noise(1, 1, 24, 24), names).items():
        quantizer = simulated.quantizers[name]
        assert torch.equal(codes, codes.round())
        assert quantizer.qmin <= float(codes.min())
        assert float(codes.max()) <= quantizer.qmax


def test_the_output_is_a_picture_of_its_own_width(in_integers):
    output = in_integers(8, 6)(noise(1, 1, 24, 24)) * 255
    # Fewer bits than 8 are for feature maps, not for what is looked at.
    torch.testing.assert_close(output, output.round(), atol=1e-4, rtol=0)
    narrow = in_integers(8, 6, output_bits=5)(noise(1, 1, 24, 24)) * 31
    torch.testing.assert_close(narrow, narrow.round(), atol=1e-4, rtol=0)


def test_everything_runs_in_integers():
    torch.manual_seed(3)
    network = Everything().eval()
    plan = Plan.uniform(weight_bits=12, activation_bits=12)
    found = quantize(network, plan, [noise(2, 1, 16, 16), noise(1, 1, 20, 16)])
    x = noise(1, 1, 16, 20, seed=4)
    with torch.no_grad():
        assert _psnr_db(found(x), network(x)) > 45


def test_layers_differ_in_width_and_may_stay_in_float(chain):
    plan = Plan.uniform(weight_bits=8, activation_bits=8)
    entry = LayerPlan(weight_bits=8, activation_bits=None)
    found = quantize(chain, plan.with_layer("first", entry), [noise(1, 1, 6, 6)])
    first, last = found.activations.graph.nodes[1:3]
    assert found.activations.quantizers[first.name] is None
    assert found.activations.quantizers[last.name].bits == 8


def test_a_bias_correction_brings_the_mean_to_that_of_float():
    torch.manual_seed(1)
    network, x = Chain().eval(), noise(4, 1, 12, 12)
    weights = quantize(network, Plan.uniform(weight_bits=3))
    means: list[float] = []
    for on in (True, False):
        plan = Plan(
            default=LayerPlan(weight_bits=3, activation_bits=10),
            activations=ActivationSettings(bias_correction=on),
        )
        simulated = quantize_activations(weights, network, plan, [x]).activations
        first = simulated.graph.nodes[1].name
        codes = simulated.run(x, (first,))[first]
        reference = torch.relu(network.first(x))
        apart = (codes * simulated.quantizers[first].scale - reference).mean(dim=(0, 2, 3))
        means.append(float(apart.detach().abs().max()))
    assert means[0] < 0.5 * means[1]


def test_bad_plans_and_calibration(chain, in_integers):
    plan = Plan.uniform(weight_bits=8, activation_bits=8)
    with pytest.raises(SettingError, match="at least 1 calibration inputs for rtn, activations"):
        quantize(chain, plan)
    with pytest.raises(SettingError, match="bias_bits"):
        in_integers(16, 16, bias_bits=8)
    with pytest.raises(PlanError, match="weights of the same plan"):
        quantize_activations(
            quantize(chain, Plan.uniform(weight_bits=4)), chain, plan, [noise(1, 1, 6, 6)]
        )
