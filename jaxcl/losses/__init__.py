"""Loss functions on arrays: no configuration, no devices, no state."""

from jaxcl.losses.nt_xent import NTXent, nt_xent, nt_xent_with_accuracy

__all__ = ["NTXent", "nt_xent", "nt_xent_with_accuracy"]
