"""Configuration files."""

from typing import Any

__all__ = ["read_model_server_config"]


def read_model_server_config(config: Any) -> Any:
    """Returns the models that a `ModelServerConfig` names."""
    return config
