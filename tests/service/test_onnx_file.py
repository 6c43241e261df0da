"""An ONNX file stands alone: what it names beside itself is found wherever it lies, and only there."""

from collections.abc import Callable
from contextlib import suppress

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from service.app import BUNDLED
from service.errors import ArtifactError
from service.onnx_file import EXTERNAL, NOT_STANDARD, UNREADABLE, check_stands_alone
from tests.artifacts import Kind, build_model


def fault_of(model: onnx.ModelProto) -> str:
    with pytest.raises(ArtifactError) as caught:
        check_stands_alone(model.SerializeToString())
    return str(caught.value)


def outside() -> TensorProto:
    return TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)


def crystal() -> onnx.NodeProto:
    return helper.make_node("Crystal", [], ["vision"], domain="crystal.ball")


def nested(node: onnx.NodeProto, depth: int) -> onnx.NodeProto:
    """A node inside the body of a node, and so on."""
    for _ in range(depth):
        node = helper.make_node("Loop", [], [], body=helper.make_graph([node], "body", [], []))
    return node


@pytest.mark.parametrize("kind", ["drift", "lstm", "mean", "bidirectional"])
def test_a_file_of_standard_operators_with_its_weights_inside_stands_alone(kind: Kind) -> None:
    check_stands_alone(build_model(kind).SerializeToString())


def test_the_bundled_model_stands_alone() -> None:
    check_stands_alone((BUNDLED / "default" / "1" / "model.onnx").read_bytes())


@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml"])
def test_the_domains_of_onnx_itself_are_standard(domain: str) -> None:
    model = build_model()
    model.graph.node.append(helper.make_node("Anything", [], [], domain=domain))
    check_stands_alone(model.SerializeToString())


def as_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside())


def as_sparse_weights(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside()))


def as_a_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["out"], value=outside()))


def as_a_constant_of_a_loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(nested(helper.make_node("Constant", [], ["out"], value=outside()), 3))


def as_a_list_of_tensors(model: onnx.ModelProto) -> None:
    attribute = onnx.AttributeProto(name="many", type=onnx.AttributeProto.TENSORS, tensors=[outside()])
    model.graph.node.append(onnx.NodeProto(op_type="Constant", attribute=[attribute]))


def in_a_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["out"], value=outside())
    model.functions.append(helper.make_function("own", "Own", [], ["out"], [node], model.opset_import))


def by_place_alone(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[1])
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.initializer.append(tensor)


@pytest.mark.parametrize(
    "put",
    [
        as_weights,
        as_sparse_weights,
        as_a_constant,
        as_a_constant_of_a_loop,
        as_a_list_of_tensors,
        in_a_function,
        by_place_alone,
    ],
)
def test_weights_in_another_file_are_found_wherever_they_are_named(put: Callable[[onnx.ModelProto], None]) -> None:
    model = build_model()
    put(model)
    assert fault_of(model) == EXTERNAL


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_operators_that_are_not_standard_are_found_at_any_depth(depth: int) -> None:
    model = build_model()
    model.graph.node.append(nested(crystal(), depth))
    assert fault_of(model) == NOT_STANDARD


def test_operators_of_functions_in_the_file_are_found() -> None:
    model = build_model()
    model.functions.append(helper.make_function("own", "Own", [], ["vision"], [crystal()], model.opset_import))
    assert fault_of(model) == NOT_STANDARD


def test_graphs_that_lie_in_each_other_too_deep_are_refused() -> None:
    content = b""
    for _ in range(1000):
        for field in (6, 5, 1):  # a graph of an attribute of a node of a graph
            content = bytes([field << 3 | 2]) + varint(len(content)) + content
    with pytest.raises(ArtifactError, match=UNREADABLE):
        check_stands_alone(bytes([7 << 3 | 2]) + varint(len(content)) + content)


def varint(number: int) -> bytes:
    low = number & 0x7F
    return bytes([low]) if number == low else bytes([low | 0x80]) + varint(number >> 7)


def test_a_number_that_looks_like_a_domain_in_the_weights_is_of_no_interest() -> None:
    model = build_model()
    model.graph.initializer.append(helper.make_tensor("text", TensorProto.UINT8, [12], b"crystal.ball", raw=True))
    check_stands_alone(model.SerializeToString())


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_else_happens(content: bytes) -> None:
    with suppress(ArtifactError):
        check_stands_alone(content)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_of_a_file_is_no_crash(place: int, byte: int) -> None:
    content = bytearray(build_model("lstm").SerializeToString())
    content[place % len(content)] = byte
    with suppress(ArtifactError):
        check_stands_alone(bytes(content))
