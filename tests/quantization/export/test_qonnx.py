"""QONNX files name the true widths, and the qonnx package gives the network's own codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from activation_kit import noise
from export_kit import integers, request
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx

from quantisp.errors import RunError
from quantisp.quantization.export import write_export
from quantisp.quantization.export.onnx import (
    build_qonnx,
    check_input,
    check_model,
    run_qonnx,
    tensor_scales,
)
from quantisp.quantization.export.onnx.running_qonnx import with_known_shapes
from quantisp.quantization.integer import IntegerExecutor, IntegerNetwork


def checked(model, network: IntegerNetwork, *shape: int):
    inputs = [check_input(shape)]
    return check_model(model, network, inputs, run_qonnx, scales=tensor_scales(network))


def quantizers(model) -> dict[str, tuple[int, bool, bool, str]]:
    """Bits, signed, narrow and rounding of each Quant node, by its output."""
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Quant":
            fields = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            bits = int(constants[node.input[3]])
            signs = bool(fields["signed"]), bool(fields["narrow"])
            found[node.output[0]] = (bits, *signs, fields["rounding_mode"].decode())
    return found


@pytest.mark.reference
@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "tie_rule", "power_of_two"),
    [(3, 5, "half_up", False), (10, 12, "half_even", True)],
)
def test_each_node_given_equal_inputs(weight_bits, activation_bits, tie_rule, power_of_two):
    network = integers("everything", weight_bits, activation_bits, tie_rule, power_of_two)
    model = build_qonnx(network)
    check = checked(model, network, 1, 1, 8, 12)
    check.refuse()
    assert len(check.nodes) == len(network.graph.nodes)
    assert check.largest <= (0 if power_of_two else 1)


@pytest.mark.reference
@pytest.mark.parametrize("tie_rule", ["half_up", "half_even"])
def test_ties_go_as_the_networks_do(tie_rule):
    network = integers("chain", 2, 8, tie_rule, True)
    check = checked(build_qonnx(network), network, 1, 1, 24, 32)
    assert check.largest == 0
    other = replace(network, tie_rule={"half_up": "half_even", "half_even": "half_up"}[tie_rule])
    assert checked(build_qonnx(other), network, 1, 1, 24, 32).largest == 1


@pytest.mark.unit
@pytest.mark.parametrize("tie_rule", ["half_up", "half_even"])
def test_true_widths_are_named(tie_rule):
    network = integers("dephasenet", 7, 11, tie_rule)
    found = quantizers(build_qonnx(network))
    for node, own in network:
        if node.moves:
            continue
        bits, signed, narrow, rounding = found[node.name]
        assert (bits, signed, narrow) == (own.codes.bits, own.codes.signed, False)
        up = "FLOOR" if signed else "HALF_UP"
        computed = own.table is None and tie_rule == "half_up"
        assert rounding == (up if computed else "ROUND")
        if own.weights is not None:
            narrow = int(own.weights.codes.min()) > -64
            weight = next(v for k, v in found.items() if k == f"{node.name}/quant")
            assert weight == (7, True, narrow, "ROUND")


@pytest.mark.unit
def test_a_damaged_file_is_refused():
    network = integers("chain")
    model = build_qonnx(network)
    for value in model.graph.initializer:
        if value.name == "conv2d/constant":
            wrong = onnx.numpy_helper.to_array(value) * 1.5
            value.CopyFrom(onnx.numpy_helper.from_array(wrong, value.name))
    with pytest.raises(RunError, match="expected nodes that differ"):
        checked(model, network, 1, 1, 8, 8).refuse()


@pytest.mark.reference
def test_a_file_for_one_size_runs_as_it_is(tmp_path: Path):
    network = integers("chain", 6, 10, "half_even")
    size = (8, 12)
    model = with_known_shapes(build_qonnx(network, size))
    onnx.save(model, tmp_path / "small.onnx")
    read = ModelWrapper(str(tmp_path / "small.onnx"))
    assert read.check_all_tensor_shapes_specified()
    x = noise(1, 1, *size)
    found = execute_onnx(read, {"input": x.numpy()})["output"]
    output = network.graph.output
    codes = IntegerExecutor(network).run(x, [output])[output]
    steps = network.integers[output].codes.qmax
    assert abs(found * steps - codes.numpy()).max() < 1.01


@pytest.mark.unit
def test_what_is_reported(tmp_path: Path):
    report = write_export("qonnx", request(integers("chain", 5, 7), 1, 8, 8), tmp_path / "out")
    assert report.verified.startswith("each node, given equal inputs, run by qonnx")
    assert report.facts["weight_bits"] == {"5": 2}
    assert report.facts["largest_difference"] <= 1
