"""Names in the generated C, made of the names of steps and tensors ("layers.0.mlp.fc1")."""

import re


def identifier(name: str) -> str:
    """`layers_0_mlp_fc1`: the structure of a step."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def address(name: str) -> str:
    """`L2_LAYERS_0_MLP_FC1`: where a tensor lies in L2."""
    return f"L2_{identifier(name).upper()}"


def parameters(name: str) -> str:
    """`L2_LAYERS_0_MLP_FC1_PARAMETERS`: where the parameters of a step lie in L2 when it runs."""
    return f"{address(name)}_PARAMETERS"
