"""Published LightGlue weights as those of ``lightglue_network``: the same function, fewer products.

A product of matrices may be taken in any order. Where the published network multiplies by two
matrices with nothing but a bias between them, one product of theirs, taken here once, does the
same:

- the logits' scale s multiplies q . k: sqrt(s) into the projection that q and k share in a
  cross-attention, s into the one of q in a self-attention (turning a vector keeps its length);
- with P the attention's weights, v the values, x the states and m = P v Wo + bo the message, the
  first layer of the feed-forward is [x, m] Wf + bf = x Wx + (P v) (Wo Wm) + (bo Wm + bf), Wx and
  Wm being the upper and the lower half of Wf;
- of a single head v = y Wv + bv, y being the states attended to, and each row of P sums to one:
  P v = (P y) Wv + bv. So Wo Wm becomes Wv Wo Wm, and bv Wo Wm joins the bias.

All is computed in float64 and rounded to float32 once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from gps_denied_inference.models.lightglue.network import Shape

State = dict[str, torch.Tensor]

_PROJECTIONS = {
    "self_attn": {"Wqkv": 3, "out_proj": 1},
    "cross_attn": {"to_qk": 1, "to_v": 1, "to_out": 1},
}
"""Published projections of both kinds of attention, and their outputs in widths."""


def folded(published: Mapping[str, torch.Tensor], shape: Shape) -> State:
    """Return the state dictionary of a ``LightGlueNetwork``, float32 where it was folded.

    Args:
        published: the parameters by their published names, ``transformers.<i>.<block>.<name>``.
        shape: of the network. Blocks that do not have it are returned as they are; loading them
            then says that they are of another network.
    """
    state = dict(published)
    for layer in range(shape.layers):
        for kind in _PROJECTIONS:
            prefix = f"transformers.{layer}.{kind}."
            block = {
                key.removeprefix(prefix): value
                for key, value in published.items()
                if key.startswith(prefix)
            }
            if not _fits(block, kind, shape.width):
                continue
            for name in block:
                del state[prefix + name]
            for name, value in _folded_block(block, kind, shape).items():
                state[prefix + name] = value
    return state


def _fits(block: Mapping[str, object], kind: str, width: int) -> bool:
    """Whether everything that is multiplied here is there and has the size it should have."""
    sizes = {name: (times * width, width) for name, times in _PROJECTIONS[kind].items()}
    sizes["ffn.0"] = (2 * width, 2 * width)
    return all(
        getattr(block.get(f"{name}.weight"), "shape", None) == size
        and getattr(block.get(f"{name}.bias"), "shape", None) == size[:1]
        for name, size in sizes.items()
    )


def _folded_block(block: State, kind: str, shape: Shape) -> State:
    width = shape.width
    size = width // shape.heads

    def linear(name: str) -> torch.Tensor:
        """A layer's weight with its bias as last column: (outputs, inputs + 1)."""
        weight, bias = block[f"{name}.weight"], block[f"{name}.bias"]
        return torch.cat([weight, bias[:, None]], dim=1).double()

    if kind == "self_attn":
        queries, keys, values = _untangled(linear("Wqkv"), shape)
        layers = {"queries_keys": torch.cat([queries * size**-0.5, keys])}
        message = linear("out_proj")
    else:
        layers = {"to_qk": linear("to_qk") * size**-0.25}
        values, message = linear("to_v"), linear("to_out")
    if shape.heads == 1:
        message = _after(message, values)
    else:
        layers["values"] = values
    first = linear("ffn.0")
    own, bias = first[:, :width], first[:, -1:]
    context = _after(first[:, width:-1], message)
    layers["feed_forward.own"] = torch.cat([own, bias + context[:, -1:]], dim=1)
    state = {"feed_forward.context": context[:, :-1].T.float().contiguous()}
    for name, layer in layers.items():
        state[f"{name}.weight"] = layer[:, :-1].float().contiguous()
        state[f"{name}.bias"] = layer[:, -1].float().contiguous()
    multiplied = (*_PROJECTIONS[kind], "ffn.0")
    for key, value in block.items():
        if key.rpartition(".")[0] not in multiplied:
            key = key.replace("ffn.1.", "feed_forward.norm.")
            state[key.replace("ffn.3.", "feed_forward.out.")] = value
    return state


def _untangled(value: torch.Tensor, shape: Shape) -> list[torch.Tensor]:
    """Return the rows of Wqkv that give queries, keys and values, (width, columns) each.

    Published, q, k and v alternate channel by channel, and channels 2i and 2i + 1 of q and k turn
    together. Here the even channels of q come first, head by head, then the odd ones; so for k.
    The same order in q and k leaves their products as they were.
    """
    half = shape.width // shape.heads // 2
    parts = value.reshape(shape.heads, half, 2, 3, -1)
    rows = [parts[:, :, :, i].permute(2, 0, 1, 3) for i in (0, 1)] + [parts[:, :, :, 2]]
    return [part.reshape(shape.width, -1) for part in rows]


def _after(second: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Return the one layer that two in a row are; biases are last columns.

    ``second`` may have none. Summed in one fixed order: a BLAS picks its own on every processor,
    and one last bit rounded otherwise would give the exported graph another hash.
    """
    inner = first.shape[0]
    total = torch.zeros(second.shape[0], first.shape[1], dtype=torch.float64)
    for i in range(inner):
        total += second[:, i, None] * first[i]
    if second.shape[1] > inner:
        total[:, -1] += second[:, -1]
    return total
