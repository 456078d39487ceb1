"""The network with folded weights against the published formula, written out here in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gps_denied_inference.errors import ModelMismatchError
from gps_denied_inference.models import zoo
from gps_denied_inference.models.registry import load_module
from gps_denied_inference.runtimes.contract import BuildConfig

torch = pytest.importorskip("torch", reason="torch is not installed")
State = dict[str, Any]

DIM, WIDTH, LAYERS = 12, 16, 2
BLOCKS = {
    "self_attn": {"Wqkv": (48, 16), "out_proj": (16, 16)},
    "cross_attn": {"to_qk": (16, 16), "to_v": (16, 16), "to_out": (16, 16)},
}


def random_state(heads: int, dim: int = DIM, width: int = WIDTH, layers: int = LAYERS) -> State:
    """Weights and biases by the names that the registry's loader gives published ones."""
    random = torch.Generator().manual_seed(heads)
    state: State = {"posenc.Wr.weight": torch.randn(width // heads // 2, 2, generator=random)}

    def linear(name: str, outputs: int, inputs: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, generator=random) / inputs**0.5
        state[f"{name}.bias"] = torch.randn(outputs, generator=random)

    linear("input_proj", width, dim)
    for i in range(layers):
        for kind, projections in BLOCKS.items():
            prefix = f"transformers.{i}.{kind}"
            for name, (outputs, inputs) in projections.items():
                linear(f"{prefix}.{name}", outputs * width // WIDTH, inputs * width // WIDTH)
            linear(f"{prefix}.ffn.0", 2 * width, 2 * width)
            state[f"{prefix}.ffn.1.weight"] = 1 + 0.3 * torch.randn(2 * width, generator=random)
            state[f"{prefix}.ffn.1.bias"] = 0.3 * torch.randn(2 * width, generator=random)
            linear(f"{prefix}.ffn.3", width, 2 * width)
    for i in range(layers - 1):
        linear(f"matchability.{i}", 1, width)
    linear("assignment.matchability", 1, width)
    linear("assignment.final_proj", width, width)
    return state


class Published:
    """The transformer as its authors describe it, one product after the other."""

    def __init__(self, state: State, heads: int) -> None:
        self.state = {name: value.double() for name, value in state.items()}
        self.heads = heads

    def linear(self, name: str, x: Any) -> Any:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def attend(self, q: Any, k: Any, v: Any, mask: Any) -> Any:
        found = []
        for head in range(self.heads):
            logits = q[:, head] @ k[:, head].T / q.shape[-1] ** 0.5 + mask
            found.append(torch.softmax(logits, dim=1) @ v[:, head])
        return torch.cat(found, dim=1)

    def updated(self, prefix: str, x: Any, message: Any) -> Any:
        hidden = self.linear(f"{prefix}.ffn.0", torch.cat([x, message], dim=1))
        hidden = hidden - hidden.mean(dim=1, keepdim=True)
        hidden = hidden / (hidden.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        hidden = hidden * self.state[f"{prefix}.ffn.1.weight"] + self.state[f"{prefix}.ffn.1.bias"]
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        return x + self.linear(f"{prefix}.ffn.3", hidden)

    def turned(self, x: Any, angles: Any) -> Any:
        """Channels 2i and 2i + 1 of each head by angle i; x is (K, heads, C)."""
        cosine, sine = torch.cos(angles)[:, None], torch.sin(angles)[:, None]
        even, odd = x[..., 0::2], x[..., 1::2]
        pairs = (even * cosine - odd * sine, odd * cosine + even * sine)
        return torch.stack(pairs, dim=-1).flatten(-2)

    def self_attention(self, prefix: str, x: Any, angles: Any, mask: Any) -> Any:
        qkv = self.linear(f"{prefix}.Wqkv", x).reshape(len(x), self.heads, -1, 3)
        q, k = self.turned(qkv[..., 0], angles), self.turned(qkv[..., 1], angles)
        message = self.linear(f"{prefix}.out_proj", self.attend(q, k, qkv[..., 2], mask))
        return self.updated(prefix, x, message)

    def cross_attention(self, prefix: str, x: list[Any], masks: list[Any]) -> list[Any]:
        def heads(name: str, of: Any) -> Any:
            return self.linear(f"{prefix}.{name}", of).reshape(len(of), self.heads, -1)

        qk, v = [heads("to_qk", of) for of in x], [heads("to_v", of) for of in x]
        found = []
        for own, other in ((0, 1), (1, 0)):
            context = self.attend(qk[own], qk[other], v[other], masks[other])
            found.append(self.updated(prefix, x[own], self.linear(f"{prefix}.to_out", context)))
        return found

    def __call__(self, points: list[Any], descriptors: list[Any], masks: list[Any]) -> list[Any]:
        """Similarity, both logits, and both states after the first layer."""
        angles = [p @ self.state["posenc.Wr.weight"].T for p in points]
        x = [self.linear("input_proj", d) for d in descriptors]
        after_first: list[Any] = []
        for i in range(LAYERS):
            x = [
                self.self_attention(f"transformers.{i}.self_attn", x[k], angles[k], masks[k])
                for k in (0, 1)
            ]
            x = self.cross_attention(f"transformers.{i}.cross_attn", x, masks)
            after_first = after_first or x
        final = [self.linear("assignment.final_proj", each) for each in x]
        logits = [self.linear("assignment.matchability", each)[:, 0] for each in x]
        return [final[0] @ final[1].T / WIDTH**0.5, *logits, *after_first]


@pytest.mark.parametrize("heads", [1, 4])
def test_the_folded_network_is_the_published_formula(heads: int) -> None:
    from gps_denied_inference.models.lightglue.network import (
        LightGlueNetwork,
        Shape,
        inner_values,
    )
    from gps_denied_inference.models.lightglue.weights import folded

    shape = Shape(DIM, WIDTH, heads, LAYERS, prunes=True)
    state = random_state(heads)
    network = LightGlueNetwork(shape).eval()
    network.load_state_dict(folded(state, shape), strict=True)

    random = torch.Generator().manual_seed(7)
    counts = (23, 31)
    points = [torch.rand(n, 2, generator=random) * 2 - 1 for n in counts]
    descriptors = [torch.randn(n, DIM, generator=random) for n in counts]
    masks = [torch.where(torch.arange(n) < n - 4, 0.0, -10000.0) for n in counts]
    inputs = [part[k] for k in (0, 1) for part in (points, descriptors, masks)]
    with torch.inference_mode():
        wanted = Published(state, heads)(
            *([value.double() for value in part] for part in (points, descriptors, masks))
        )
        # In float64 only the rounding of the folded weights and of the angles is left.
        for kind, tolerance in ((torch.float64, 2e-6), (torch.float32, 1e-5)):
            found = network.to(kind)(*(value.to(kind) for value in inputs))
            inner = dict(zip(inner_values(shape), found[3:], strict=True))
            ours = [*found[:3], inner["state0_0"], inner["state1_0"]]
            for got, right in zip(ours, wanted, strict=True):
                error = (got.double() - right).abs().max() / right.abs().max()
                assert error < tolerance, kind


def test_folding_leaves_nothing_of_the_published_projections() -> None:
    from gps_denied_inference.models.lightglue.network import Shape
    from gps_denied_inference.models.lightglue.weights import folded

    published = random_state(heads=1)
    before = {name: value.clone() for name, value in published.items()}
    kept = folded(published, Shape(DIM, WIDTH, 1, LAYERS, prunes=True))
    gone = ("Wqkv", "out_proj", "to_v", "to_out", "values", "ffn.")
    assert not [name for name in kept if any(part in name for part in gone)]
    assert {value.dtype for value in kept.values()} == {torch.float32}
    assert published.keys() == before.keys()
    assert all(torch.equal(published[name], before[name]) for name in before)


def saved(state: State, folder: Path) -> Path:
    """A checkpoint of LighterGlue under its authors' names."""
    named = {}
    for name, value in state.items():
        if name.startswith("assignment."):
            name = name.replace("assignment.", "log_assignment.5.")
        elif name.startswith("matchability."):
            _, layer, rest = name.split(".")
            name = f"log_assignment.{layer}.matchability.{rest}"
        named[f"matcher.{name}"] = value
    path = folder / "random.pt"
    torch.save(named, path)
    return path


@pytest.fixture(scope="module")
def lighterglue_state() -> State:
    return random_state(1, dim=64, width=96, layers=6)


def test_a_whole_checkpoint_is_taken(lighterglue_state: State, tmp_path: Path) -> None:
    path = saved(lighterglue_state, tmp_path)
    load_module(zoo.resolve("lighterglue", weights=path), BuildConfig())


@pytest.mark.parametrize("change", ["missing", "transposed", "narrow", "no tensor"])
@pytest.mark.parametrize(
    "name",
    [
        "0.self_attn.Wqkv.weight",
        "5.self_attn.Wqkv.bias",
        "0.self_attn.out_proj.weight",
        "2.cross_attn.to_v.weight",
        "3.cross_attn.to_out.bias",
        "1.cross_attn.ffn.0.weight",
        "4.self_attn.ffn.0.bias",
    ],
)
def test_a_checkpoint_of_another_shape_is_refused(
    name: str, change: str, lighterglue_state: State, tmp_path: Path
) -> None:
    state = dict(lighterglue_state)
    key = f"transformers.{name}"
    value = state.pop(key)
    if change == "transposed":
        state[key] = value[None] if value.ndim == 1 else value.T[: value.shape[1] // 2]
    elif change == "narrow":
        state[key] = value[..., :-1]
    elif change == "no tensor":
        state[key] = 3
    path = saved(state, tmp_path)
    said = "not a tensor" if change == "no tensor" else "another network"
    with pytest.raises(ModelMismatchError, match=said):
        load_module(zoo.resolve("lighterglue", weights=path), BuildConfig())
