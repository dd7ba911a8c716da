"""A direct head for a potential, taught by its own conservative forces: dynamics, labels, training in one run."""

from remul_md.distillation.run import Distilled, distill_direct_head, head_config
from remul_md.labels.own_dynamics import Sampling

__all__ = ["Distilled", "Sampling", "distill_direct_head", "head_config"]
