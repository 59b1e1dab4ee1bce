"""Which tags are drawn together, under TensorBoard's Custom Scalars and in `report.html`: what matters most first."""

from __future__ import annotations

LAYOUT: dict[str, dict[str, tuple[str, ...]]] = {
    "Critic, actions, reward": {
        "Critic loss": ("losses/critic",),
        "Actor output": ("actions/saturation", "actions/repeat_ratio", "actions/responsiveness"),
        "Reward (return per episode)": ("charts/return", "eval/return"),
    },
    "Gradients": {
        "Norm before clipping": ("grad_norm/actor", "grad_norm/critic"),
        "Fraction clipped": ("grad_norm/actor_clipped_fraction", "grad_norm/critic_clipped_fraction"),
        "Norm of the weights": ("weights/norm",),
    },
    "Policy": {
        "Entropy": ("losses/entropy",),
        "Approximate KL": ("losses/approx_kl",),
        "Clip fraction": ("losses/clip_fraction",),
        "Explained variance": ("losses/explained_variance",),
        "Actor loss": ("losses/actor",),
    },
    "Episodes": {
        "Episode length": ("charts/episode_length", "eval/episode_length"),
    },
    "Reward per step": {
        "Mean and deviation": ("rewards/mean", "rewards/std"),
        "Terms": ("rewards/terms",),
    },
}
"""Category, chart, tags. A tag stands for its parts as well."""
