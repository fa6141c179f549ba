"""Both executors, the simulation, and plain integers: the same codes on every layer."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from activation_kit import Chain, Everything, noise, tiny_dephasenet

from quantisp.errors import ModelError, RunError
from quantisp.quantization import (
    ActivationSettings,
    Graph,
    LayerPlan,
    Plan,
    QuantizedModel,
    capture,
    quantize,
    quantize_activations,
)
from quantisp.quantization.integer import IntegerExecutor, integer_network, run_specification
from quantisp.quantization.integer.int8 import int8_is_exact

NETWORKS = {"everything": Everything, "dephasenet": tiny_dephasenet, "chain": Chain}
SIZES = {"everything": (1, 1, 8, 12), "dephasenet": (1, 1, 8, 12), "chain": (2, 1, 5, 7)}


@cache
def captured(name: str) -> tuple[torch.nn.Module, Graph]:
    torch.manual_seed(3)
    network = NETWORKS[name]().eval()
    return network, capture(network, noise(1, 1, 16, 16))


def quantized(name: str, weight_bits: int, activation_bits: int, **settings) -> QuantizedModel:
    network, graph = captured(name)
    plan = Plan(
        default=LayerPlan(
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            granularity="channel" if weight_bits % 4 == 0 else "tensor",
        ),
        activations=ActivationSettings(bias_bits=40, **settings),
    )
    weights = quantize(network, plan.without_activations())
    return quantize_activations(weights, network, plan, [noise(2, 1, 16, 16)], graph=graph)


def test_a_kernel_may_be_forced_and_the_cheapest_is_chosen_otherwise():
    network = integer_network(quantized("dephasenet", 8, 8))
    kinds = {p.kind for p in IntegerExecutor(network, kinds=("float64",)).products.values()}
    assert kinds == {"float64"}


@pytest.mark.reference
@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "tie_rule", "power_of_two", "sum_bits"),
    [
        (5, 4, "half_up", False, None),
        (8, 8, "half_even", True, None),
        (8, 8, "half_up", False, 16),
        (8, 8, "half_even", True, 12),
        (10, 12, "half_up", True, None),
        (16, 16, "half_even", False, None),
    ],
)
@pytest.mark.parametrize("name", list(NETWORKS))
def test_both_executors_and_the_simulation_agree_on_every_tensor(
    name, weight_bits, activation_bits, tie_rule, power_of_two, sum_bits
):
    found = quantized(
        name,
        weight_bits,
        activation_bits,
        tie_rule=tie_rule,
        power_of_two=power_of_two,
        sum_bits=sum_bits,
    )
    network = integer_network(found)
    assert network.power_of_two == power_of_two
    x = noise(*SIZES[name], seed=4)
    names = [node.name for node in network.graph.nodes]
    expected = run_specification(network, x, names)
    simulated = found.activations.double().run(x.double(), names)
    for kinds in (None, ("float32", "float64"), ("float64",)):
        codes = IntegerExecutor(network, kinds=kinds).run(x, names)
        for name_, array in expected.items():
            assert tuple(codes[name_].shape) == array.shape
            assert codes[name_].flatten().tolist() == array.values, name_
    for name_, values in simulated.items():
        assert values.flatten().long().tolist() == expected[name_].values, name_
    for node, own in network:
        assert own.codes.low <= min(expected[node.name].values)
        assert max(expected[node.name].values) <= own.codes.high


@pytest.mark.reference
@pytest.mark.parametrize("tie_rule", ["half_up", "half_even"])
def test_layers_that_the_operator_for_bytes_rescales_give_the_same(tie_rule):
    found = quantized("dephasenet", 8, 8, tie_rule=tie_rule, power_of_two=True)
    network = integer_network(found)
    executor, plain = IntegerExecutor(network), IntegerExecutor(network, kinds=("float64",))
    assert not plain.fused
    assert int8_is_exact() == (len(executor.fused) > 8)
    x = noise(1, 1, 64, 48, seed=4)
    names = [node.name for node in network.graph.nodes]
    fast, slow = executor.run(x, names), plain.run(x, names)
    assert all(torch.equal(fast[name], slow[name]) for name in names)


@pytest.mark.property
def test_extremes_of_the_input_change_nothing():
    network = integer_network(quantized("dephasenet", 8, 8, input_bits=8))
    # 0, 1, beyond, and values in the middle between two codes.
    x = torch.tensor([0.0, 1.0, -3.0, 7.0, 0.5 / 255, 1.5 / 255, 254.5 / 255, 1e30])
    x = x.repeat(12).reshape(1, 1, 8, 12)
    names = [node.name for node in network.graph.nodes]
    codes = IntegerExecutor(network).run(x, names)
    for name, array in run_specification(network, x, names).items():
        assert codes[name].flatten().tolist() == array.values


def test_the_module_takes_pictures_as_the_quantized_network_does():
    found = quantized("dephasenet", 8, 8)
    executor = IntegerExecutor(integer_network(found), found.network)
    x = noise(2, 1, 22, 29, seed=2)
    # The simulation in float32 may be off by a code now and then.
    restored, simulated = executor(x), found(x)
    assert restored.shape == (2, 3, 22, 29)
    assert float((restored - simulated).abs().max()) <= 1.5 / 255
    assert float((restored != simulated).float().mean()) < 0.01
    assert executor.pattern == found.pattern


def test_threads_change_nothing():
    network = integer_network(quantized("dephasenet", 8, 8))
    executor, x = IntegerExecutor(network), noise(1, 1, 128, 192)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(executor(x))
    torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_float_is_refused():
    network, _ = captured("chain")
    with pytest.raises(ModelError, match="activations in integers, found float"):
        integer_network(quantize(network, Plan.uniform(weight_bits=8)))
    plan = Plan.uniform(weight_bits=None, activation_bits=8)
    with pytest.raises(ModelError, match="layer 'first' has float weights"):
        integer_network(quantize(network, plan, [noise(1, 1, 8, 8)]))
    plan = Plan.uniform(weight_bits=8, activation_bits=8)
    plan = plan.with_layer("first", LayerPlan(weight_bits=8))
    with pytest.raises(ModelError, match="gives float: plan its layer"):
        integer_network(quantize(network, plan, [noise(1, 1, 8, 8)]))


def test_bad_inputs_are_one_line():
    executor = IntegerExecutor(integer_network(quantized("dephasenet", 8, 8)))
    with pytest.raises(ModelError, match="found an input of 7x8 px: pad it to whole folds"):
        executor(noise(1, 1, 7, 8))
    with pytest.raises(RunError, match="found NaN"):
        executor(torch.full((1, 1, 8, 8), float("nan")))
