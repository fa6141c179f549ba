"""Bias correction: what rounding adds to the mean of a layer's outputs is taken from its bias.

Sources: Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization through weight
equalization and bias correction", ICCV 2019, appendix D (its empirical form, layer by layer in the
order of use); Banner, Nahshan, Soudry, "Post training 4-bit quantization of convolutional networks
for rapid-deployment", NeurIPS 2019, section 3.3.
"""

from __future__ import annotations

from quantisp.quantization.network import NetworkTask, RoundedNetwork
from quantisp.quantization.statistics import count_calls, first_inputs, output_means

__all__ = ["correct_biases", "corrected"]


def correct_biases(task: NetworkTask) -> RoundedNetwork:
    """Scales of least squared error, then corrected biases; the argument is ``NetworkMethod``'s."""
    rounded = task.round_by(task.model, "mse", [], lambda _done, _total: None)
    return corrected(task, rounded)


def corrected(task: NetworkTask, start: RoundedNetwork) -> RoundedNetwork:
    """The same codes, with the biases corrected of those layers that have one."""
    calls = count_calls(start.network, task.inputs[0], list(task.formats))
    layers = [
        name
        for name in calls
        if "bias" in dict(start.network.get_submodule(name).named_parameters(recurse=False))
    ]
    found = start
    inputs = first_inputs(task.inputs)
    wanted = output_means(task.model, layers, inputs)
    for done, name in enumerate(layers, start=1):
        given = output_means(found.network, [name], inputs, calls=calls[name])[name]
        bias = found.network.get_submodule(name).get_parameter("bias").detach()
        found = found.with_weights({}, {name: bias + (wanted[name] - given).to(bias)})
        task.report(done, len(layers))
    return found
