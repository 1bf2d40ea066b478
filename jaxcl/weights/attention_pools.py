"""Tables of the two poolings by attention, under the names of transformers and of openai/CLIP."""

from jaxcl.weights.tables import LINEAR, Entry, layer_norm, linear


def attention_pool_entries(ours: str, theirs: str) -> list[Entry]:
    """An `AttentionPool` at path `ours`: SiglipMultiheadAttentionPoolingHead at `theirs`."""
    attention = f"{theirs}.attention"
    return [
        Entry(f"{ours}/probe", (f"{theirs}.probe",)),
        Entry(f"{ours}/qkv_kernel", (f"{attention}.in_proj_weight",), LINEAR),
        Entry(f"{ours}/qkv_bias", (f"{attention}.in_proj_bias",)),
        *linear(f"{ours}/out", f"{attention}.out_proj"),
        *layer_norm(f"{ours}/norm", f"{theirs}.layernorm"),
        *linear(f"{ours}/linear1", f"{theirs}.mlp.fc1"),
        *linear(f"{ours}/linear2", f"{theirs}.mlp.fc2"),
    ]


def mean_query_pool_entries(ours: str, theirs: str) -> list[Entry]:
    """A `MeanQueryPool` at path `ours`: openai/CLIP's AttentionPool2d at `theirs`."""
    return [
        Entry(f"{ours}/positions", (f"{theirs}.positional_embedding",)),
        *linear(f"{ours}/q", f"{theirs}.q_proj"),
        *linear(f"{ours}/kv", f"{theirs}.k_proj", f"{theirs}.v_proj"),
        *linear(f"{ours}/out", f"{theirs}.c_proj"),
    ]
