"""ONNX files give the network's own codes: every node for itself, and none unnoticed if not."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import onnx
import pytest
import torch
from activation_kit import noise
from export_kit import in_integers, integers, request
from onnx_kit import rest_integers
from torch import nn

from quantisp.errors import ModelError, RunError, SettingError
from quantisp.quantization import capture
from quantisp.quantization.export import write_export
from quantisp.quantization.export.onnx import (
    build_onnx,
    check_input,
    check_model,
    run_onnxruntime,
)
from quantisp.quantization.export.onnx.running import onnxruntime_session
from quantisp.quantization.graph import nodes as ops
from quantisp.quantization.integer import Accumulator, IntegerExecutor


def checked(network, *shape: int):
    """The model, and how far its nodes are from the network's."""
    model = build_onnx(network)
    onnx.checker.check_model(model, full_check=True)
    return model, check_model(model, network, [check_input(shape)], run_onnxruntime)


def types_of(model) -> dict[str, str]:
    """The types of integers that weights and tensors are kept in, by tensor."""
    name = onnx.TensorProto.DataType.Name
    return {value.name: name(value.data_type) for value in model.graph.initializer}


def test_small_networks_have_every_operation():
    kinds = {type(n.operation) for net in (integers("everything"), rest_integers()) for n, _ in net}
    assert kinds == set(get_args(ops.Operation))


@pytest.mark.reference
@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "tie_rule", "power_of_two"),
    [
        (4, 4, "half_even", True),
        (5, 6, "half_up", False),
        (8, 8, "half_even", True),
        (8, 8, "half_up", False),
        (10, 12, "half_up", True),
        (16, 16, "half_even", False),
    ],
)
def test_each_node_given_equal_inputs(weight_bits, activation_bits, tie_rule, power_of_two):
    network = integers("everything", weight_bits, activation_bits, tie_rule, power_of_two)
    model, check = checked(network, 1, 1, 8, 12)
    check.refuse()
    assert [found.node for found in check.nodes] == [node.name for node in network.graph.nodes]
    assert check.largest <= 1
    assert check.rate < 0.001
    if power_of_two and tie_rule == "half_even":
        assert check.largest == 0
        # But for the input, and a layer whose worst sums need more than 24 bits.
        assert sum(f.allowed for f in check.nodes) <= 2
    weights = {t for n, t in types_of(model).items() if n.endswith("weight")}
    assert weights == {f"INT{next(b for b in (4, 8, 16) if weight_bits <= b)}"}


@pytest.mark.reference
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("tie_rule", ["half_up", "half_even"])
def test_ties_go_as_the_networks_do(tie_rule, bits):
    network = integers("chain", 2, bits, tie_rule, True)
    assert checked(network, 1, 1, 24, 32)[1].largest == 0
    other = replace(network, tie_rule={"half_up": "half_even", "half_even": "half_up"}[tie_rule])
    model = build_onnx(other)
    assert check_model(model, network, [check_input((1, 1, 24, 32))], run_onnxruntime).largest == 1


@pytest.mark.reference
@pytest.mark.parametrize(("bits", "power_of_two"), [(8, True), (16, False)])
def test_each_node_of_a_network_of_residual_blocks(bits, power_of_two):
    network = integers("dephasenet", bits, bits, "half_even", power_of_two)
    _, check = checked(network, 1, 1, 8, 12)
    check.refuse()
    assert check.rate < 0.001


@pytest.mark.unit
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_codes_are_integers_where_there_is_the_type(bits):
    network = integers("dephasenet", 8, bits)
    model = build_onnx(network)
    makers = {node.output[0]: node for node in model.graph.node}
    types = types_of(model)
    for node, own in network:
        if own.codes.bits in (4, 8, 16):
            maker = makers[node.name]
            assert maker.op_type == "QuantizeLinear"
            sign = "" if own.codes.signed else "U"
            assert types[maker.input[2]] == f"{sign}INT{own.codes.bits}"
        elif own.weights is not None:
            made, chain = node.name, []
            for _ in range(4):
                chain.append(makers[made].op_type)
                made = makers[made].input[0]
            assert chain == ["Clip", "Floor", "Add", "Div"]


@pytest.mark.reference
@pytest.mark.parametrize("power_of_two", [False, True])
def test_the_other_operations_at_sizes_that_follow_from_the_pictures(power_of_two):
    network = rest_integers(power_of_two)
    model = build_onnx(network)
    for shape in ((2, 1, 10, 14), (1, 1, 13, 8)):
        check = check_model(model, network, [check_input(shape)], run_onnxruntime)
        check.refuse()
        assert check.rate < 0.001


@pytest.mark.reference
def test_a_file_for_every_size_gives_the_executors_pictures():
    network = integers("everything", 8, 8, "half_even", True)
    session = onnxruntime_session(build_onnx(network))
    assert session.get_inputs()[0].shape == ["n", 1, "height", "width"]
    for shape in ((1, 1, 8, 12), (3, 1, 16, 10)):
        x = noise(*shape, seed=4)
        (found,) = session.run(None, {"input": x.numpy()})
        expected = IntegerExecutor(network)(x)
        assert torch.allclose(torch.from_numpy(found), expected, atol=1e-6, rtol=0)


@pytest.mark.unit
def test_a_file_for_one_size_knows_every_shape():
    network = rest_integers()
    model = build_onnx(network, (12, 16))
    kinds = {node.op_type for node in model.graph.node}
    assert "Shape" not in kinds
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    assert all(all(shapes[node.name]) for node, _ in network)
    check_model(model, network, [check_input((1, 1, 12, 16))], run_onnxruntime).refuse()
    with pytest.raises(ModelError, match="expected a size that"):
        build_onnx(integers("dephasenet"), (13, 16))


@pytest.mark.unit
@pytest.mark.parametrize("damage", ["weight", "constant", "zero"])
def test_a_damaged_file_is_refused(damage):
    network = integers("everything", 8, 8, "half_even", True)
    model = build_onnx(network)
    for value in model.graph.initializer:
        if damage == "weight" and value.name == "conv2d/weight":
            # One bit of one weight.
            value.raw_data = bytes([value.raw_data[0] ^ 32]) + value.raw_data[1:]
        elif damage == "constant" and value.data_type == onnx.TensorProto.FLOAT and value.dims:
            if value.name.startswith("sigmoid"):
                table = onnx.numpy_helper.to_array(value).copy()
                table[len(table) // 2 :] += table.max() / 255
                value.CopyFrom(onnx.numpy_helper.from_array(table, value.name))
        elif damage == "zero" and value.name.endswith("zero"):
            value.raw_data = b"\1"
    check = check_model(model, network, [check_input((1, 1, 16, 24))], run_onnxruntime)
    assert check.largest >= 1
    with pytest.raises(RunError, match=r"expected nodes that differ .* nothing was written"):
        check.refuse()


@pytest.mark.unit
def test_nothing_is_written_of_a_file_that_differs(tmp_path: Path, monkeypatch):
    from quantisp.quantization.export.onnx import layers

    def wrong(own, node):
        return right(own, node) * 1.25

    right = layers.ratios
    monkeypatch.setattr(layers, "ratios", wrong)
    with pytest.raises(RunError, match="expected nodes that differ"):
        write_export("onnx", request(integers("chain"), 1, 8, 8), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unit
def test_what_is_reported(tmp_path: Path):
    report = write_export("onnx", request(integers("chain"), 1, 8, 8), tmp_path / "out")
    assert report.verified.startswith("each node, given equal inputs, run by onnxruntime")
    assert report.facts["nodes_compared"] == 3
    assert report.facts["largest_difference"] <= 1
    assert report.facts["weights_stored_as"] == {"INT8": 2}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["export.json", "small.onnx"]
    model = onnx.load(tmp_path / "out" / "small.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (21, 10)


@pytest.mark.reference
@pytest.mark.parametrize("power_of_two", [False, True])
def test_accumulators_that_saturate(power_of_two):
    network = integers("dephasenet", 8, 8, "half_even", power_of_two)
    narrow = network.with_accumulator(Accumulator(bits=13, overflow="clamp"))
    model, check = checked(narrow, 1, 1, 8, 12)
    check.refuse()
    assert {"Min", "Max"} <= {node.op_type for node in model.graph.node}
    free = check_model(build_onnx(network), narrow, [check_input((1, 1, 8, 12))], run_onnxruntime)
    assert free.largest > 1


@pytest.mark.unit
def test_what_a_file_cannot_have_is_one_line():
    network = integers("chain")
    with pytest.raises(ModelError, match=r"that fit or clamp.* layer 'first' may need"):
        build_onnx(network.with_accumulator(Accumulator(bits=8, overflow="wrap")))
    build_onnx(network.with_accumulator(Accumulator(bits=8, overflow="error")))
    node, own = list(network)[1]
    wide = replace(own, codes=replace(own.codes, bits=20))
    wider = replace(network, integers={**network.integers, node.name: wide})
    with pytest.raises(ModelError, match=r"activations of at most 16 bits, node '.*' at .* has 20"):
        build_onnx(wider)

    class Strange(ops.Requantize):
        pass

    odd = replace(node, operation=Strange())
    nodes = tuple(odd if n is node else n for n in network.graph.nodes)
    graph = replace(network.graph, nodes=nodes)
    integer = replace(own, weights=None)
    strange = replace(network, graph=graph, integers={**network.integers, node.name: integer})
    with pytest.raises(ModelError, match=r"operations that ONNX has, node .* is a Strange"):
        build_onnx(strange)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("file_format", "package", "extra"),
    [("onnx", "onnx", "export"), ("onnx", "onnxruntime", "export"), ("qonnx", "qonnx", "qonnx")],
)
def test_a_package_that_is_not_there_is_one_line(
    tmp_path, monkeypatch, file_format, package, extra
):
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    wanted = request(integers("chain"), 1, 8, 8)
    line = rf"the package {package} for this format, found none .*pip install 'quantisp\[{extra}\]'"
    with pytest.raises(SettingError, match=line):
        write_export(file_format, wanted, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unit
def test_a_channel_whose_ratio_is_nothing_gives_nothing():
    network = rest_integers()
    found = next(n for n, own in network if own.rescale is not None and own.weights is not None)
    own = network.integers[found.name]
    multiplier = own.rescale.multiplier.clone()
    multiplier[:, 0] = 0
    silent = replace(own, rescale=replace(own.rescale, multiplier=multiplier))
    quiet = replace(network, integers={**network.integers, found.name: silent})
    checked(quiet, 1, 1, 8, 8)[1].refuse()


@pytest.mark.unit
def test_biases_beyond_32_bits_are_floats():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 1))
    with torch.no_grad():
        network[0].bias.fill_(100.0)
    graph = capture(network, noise(1, 1, 8, 8))
    wide = in_integers(network, graph, 16, 16)
    assert all(int(weights.bias.abs().max()) > 1 << 31 for _, _, weights, _ in wide.layers())
    model, check = checked(wide, 1, 1, 8, 8)
    check.refuse()
    assert "INT32" not in types_of(model).values()
