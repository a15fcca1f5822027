"""Many prompts: statistics of all runs, how stable heads are, and the overview of sink scores."""

import numpy as np

import headgrid


def captures():
    """Yield four runs of five layers; heads 1 and 4 of layer 3 have a sink in every run."""
    query, key = np.meshgrid(np.arange(9), np.arange(9), indexing="ij")
    for run in range(4):
        for layer in range(5):
            sinks = np.array([0.2, 5.0 * (layer == 3), -0.5, 0.1 * run, 3.0 * (layer == 3), 0.0])
            ripple = np.cos(query * (1 + layer) + key * (2 + run))
            yield headgrid.Capture.from_array(
                sinks[:, None, None] * (key == 0) + 0.3 * ripple,
                block_sizes=[3] * 3,
                layer=layer,
                run=f"run_{run:03d}",
            )


def chart():
    """Draw layers x heads; the colours are means over the four runs."""
    survey = headgrid.survey(captures())
    return headgrid.overview(survey)


if __name__ == "__main__":
    print(headgrid.save(chart(), "survey_of_runs.svg"))
