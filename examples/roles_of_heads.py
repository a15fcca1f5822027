"""Roles of heads: Anchor, Wave and Veil of four runs, by the rule of Pyramid Forcing."""

import numpy as np

import headgrid


def captures():
    """Yield four runs of six layers; in deeper layers more heads look at one side of zero."""
    keys = np.arange(60)
    for run in range(4):
        noise = np.random.default_rng(run)
        for layer in range(6):
            level = np.array([[2.0], [-2.0], [0.3], [-0.3], [0.0], [0.35 * layer], [0.0], [-1.0]])
            periods = np.array(
                [[3.4], [5.0], [4.0], [12.0], [3 + 0.7 * layer], [9.0], [3.5], [5.0]]
            )
            rows = level + np.sin(2 * np.pi * keys / periods) + noise.normal(0, 0.8, (8, 60))
            yield headgrid.Capture.from_array(last_block=rows, layer=layer, run=f"run_{run:03d}")


def chart():
    """Draw layers x heads: the role that most runs give, paler where they are split."""
    roles = headgrid.head_roles(headgrid.survey(captures()), "sign-period")
    return headgrid.role_map(roles)


if __name__ == "__main__":
    print(headgrid.save(chart(), "roles_of_heads.svg"))
